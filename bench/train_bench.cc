// What a training step costs: nestrec's step against the plain one (bench/plain_network.h) on the
// same weights and batch, time and memory; and the share of the machine's matrix product speed.
//
//   train_bench [--dim 1024] [--batch 32] [--items 12101] [--features 2048] [--steps 5] [--json]
//   train_bench --only nestrec --items 1000000 --features 256 --dim 256   nestrec's step alone
//   train_bench --only nestrec --mixer gru   of another mixer, with --dropout in attention too
//
// Loss and every gradient of the two are compared first. Each variant then runs in a process of its
// own, one after the other in every round, so that peak memory is its own and noise falls on both;
// the plain step is slow, and one round of it is the default.
#include <malloc.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "bench/plain_network.h"
#include "bench/timing.h"
#include "model/gemm.h"
#include "model/network.h"
#include "model/optimizer.h"

namespace nestrec {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct Flags {
  int dim = 1024;
  int batch = 32;
  int items = 12101;
  int features = 2048;
  int blocks = 1;
  int max_len = 50;
  double mean_length = 7.0;
  int steps = 5;
  int plain_steps = 1;
  int threads = 0;
  std::string mixer = "lru";
  double dropout = 0;
  std::string only;
  bool json = false;
};

double Seconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// A field of /proc/self/status in bytes.
double StatusBytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word == field + ":") {
      double kilobytes = 0;
      status >> kilobytes;
      return kilobytes * 1024;
    }
  }
  return 0;
}

// Sequences whose lengths are at least 3 and geometric above, as shops' are.
struct Problem {
  explicit Problem(const Flags& flags)
      : sizes(*NestedSizes::Doubling(flags.dim)),
        network(
            {.sizes = sizes,
             .blocks = flags.blocks,
             .max_len = flags.max_len,
             .feature_width = flags.features,
             .architecture = {.mixer = *ParseMixer(flags.mixer)},
             .dropout = flags.dropout,
             .precision = flags.only == "bfloat16" ? Precision::kBfloat16 : Precision::kFloat32},
            Random(1, 0)),
        features(torch::randn({flags.items + 1, flags.features})) {
    features[0].zero_();
    Random random(2, 0);
    const double stop = 1.0 / std::max(1.0, flags.mean_length - 2.0);
    row_begins.push_back(0);
    for (int row = 0; row < flags.batch; ++row) {
      int length = 3;
      while (length < flags.max_len && random.Uniform() > stop) ++length;
      std::vector<int64_t> labels;
      for (int i = 0; i < length; ++i) {
        labels.push_back(1 + static_cast<int64_t>(random.Uniform() * flags.items));
      }
      std::vector<int64_t> tokens(labels.begin(), labels.end() - 1);
      tokens.insert(tokens.begin(), 0);
      batch.Append(tokens, labels);
      row_begins.push_back(batch.positions());
    }
  }

  NestedSizes sizes;
  Network network;
  torch::Tensor features;
  PackedBatch batch;
  std::vector<int64_t> row_begins;
};

Json CompareGradients(const Flags& flags) {
  Problem problem(flags);
  Network& network = problem.network;
  const torch::Tensor fast = network.Loss(
      problem.batch, network.Forward(problem.batch, problem.features, true), problem.features);
  fast.backward();
  std::vector<torch::Tensor> gradients;
  for (const auto& parameter : network.parameters().All()) {
    gradients.push_back(parameter.tensor->grad().clone());
    parameter.tensor->mutable_grad().reset();
  }
  const torch::Tensor plain =
      PlainLoss(network.parameters(), problem.sizes,
                Pad(problem.batch, problem.row_begins, flags.max_len), problem.features);
  plain.backward();
  double worst = 0;
  std::string worst_name;
  size_t i = 0;
  for (const auto& parameter : network.parameters().All()) {
    const torch::Tensor expected = parameter.tensor->grad();
    const double difference = (gradients[i++] - expected).abs().max().item<double>() /
                              std::max(1e-12, expected.abs().max().item<double>());
    if (difference > worst) {
      worst = difference;
      worst_name = parameter.name;
    }
  }
  Json json;
  json["loss"] = fast.item<double>();
  json["plain_loss"] = plain.item<double>();
  json["worst_gradient_difference"] = worst;
  json["worst_gradient"] = worst_name;
  return json;
}

// The speed of one square product, in GFLOP/s.
double ProductGflops() {
  constexpr int64_t kSide = 3072;
  static const std::vector<float> a(kSide * kSide, 1.0f);
  static std::vector<float> c(kSide * kSide);
  const auto start = Clock::now();
  Gemm(Op::kNone, Op::kNone, kSide, kSide, kSide, a.data(), kSide, a.data(), kSide, 0.0f, c.data(),
       kSide);
  return 2.0 * kSide * kSide * kSide / Seconds(start, Clock::now()) / 1e9;
}

Json Measure(const Flags& flags, bool plain) {
  Problem problem(flags);
  Network& network = problem.network;
  Optimizer optimizer(network.parameters(), {});
  const PaddedBatch padded = Pad(problem.batch, problem.row_begins, flags.max_len);
  malloc_trim(0);
  const double before = StatusBytes("VmRSS");
  std::ofstream("/proc/self/clear_refs") << "5";  // VmHWM starts anew
  std::vector<double> forward, backward, update, whole, products;
  const int steps = plain ? flags.plain_steps : flags.steps;
  double first_loss = 0;
  Json json;
  for (int step = 0; step < steps + 1; ++step) {
    const auto start = Clock::now();
    optimizer.ZeroGradients();
    torch::Tensor z;
    if (!plain) z = network.Forward(problem.batch, problem.features, true);
    const auto encoded = Clock::now();
    const torch::Tensor loss =
        plain ? PlainLoss(network.parameters(), problem.sizes, padded, problem.features)
              : network.Loss(problem.batch, z, problem.features);
    const auto evaluated = Clock::now();
    loss.backward();
    const auto differentiated = Clock::now();
    if (step == 0) first_loss = loss.item<double>();
    optimizer.Step(1e-4);
    const auto end = Clock::now();
    if (step == 0) continue;  // the first step allocates
    forward.push_back(Seconds(start, encoded));
    whole.push_back(Seconds(start, end));
    backward.push_back(Seconds(evaluated, differentiated));
    update.push_back(Seconds(differentiated, end));
    if (step == 1) json["memory_bytes"] = StatusBytes("VmHWM") - before;
    if (!plain) products.push_back(ProductGflops());  // in turns: noise falls on both
  }
  json["step_seconds"] = Median(whole);
  json["forward_seconds"] = Median(forward);
  json["backward_seconds"] = Median(backward);
  json["optimizer_seconds"] = Median(update);
  if (!plain) {
    json["loss_seconds"] = Median(whole) - Median(forward) - Median(backward) - Median(update);
    json["flops"] = network.StepFlops(problem.batch.positions());
    json["product_gflops"] = Median(products);
    json["best_product_gflops"] = *std::max_element(products.begin(), products.end());
  }
  json["positions"] = problem.batch.positions();
  json["loss"] = first_loss;
  return json;
}

// Runs this program again for one part, and reads its report.
absl::StatusOr<Json> RunPart(const std::string& part, const Flags& flags) {
  const std::string command = absl::StrCat(
      "/proc/self/exe --only ", part, " --dim ", flags.dim, " --batch ", flags.batch, " --items ",
      flags.items, " --features ", flags.features, " --blocks ", flags.blocks, " --max-len ",
      flags.max_len, " --mean-length ", flags.mean_length, " --steps ", flags.steps,
      " --plain-steps ", flags.plain_steps, " --threads ", flags.threads);
  char program[4096];
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  if (length <= 0) return absl::InternalError("cannot read /proc/self/exe");
  program[length] = 0;
  const std::string line =
      absl::StrCat("'", program, "'", command.substr(std::string("/proc/self/exe").size()));
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(line.c_str(), "r"), pclose);
  if (pipe == nullptr) return absl::InternalError(absl::StrCat("cannot run ", line));
  std::string output;
  char buffer[4096];
  while (std::fgets(buffer, sizeof buffer, pipe.get()) != nullptr) output += buffer;
  Json json = Json::parse(output, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::InternalError(absl::StrCat(line, " printed: ", output));
  return json;
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Measures a training step against the plain one.");
  app.add_option("--dim", flags.dim, "Widest size")->capture_default_str();
  app.add_option("--batch", flags.batch, "Sequences")->capture_default_str();
  app.add_option("--items", flags.items, "Items")->capture_default_str();
  app.add_option("--features", flags.features, "Feature columns")->capture_default_str();
  app.add_option("--blocks", flags.blocks, "Blocks")->capture_default_str();
  app.add_option("--max-len", flags.max_len, "The plain step pads to it")->capture_default_str();
  app.add_option("--mean-length", flags.mean_length, "Positions of a sequence")
      ->capture_default_str();
  app.add_option("--steps", flags.steps, "Steps measured")->capture_default_str();
  app.add_option("--plain-steps", flags.plain_steps, "Plain steps measured")->capture_default_str();
  app.add_option("--threads", flags.threads, "0: all cores")->capture_default_str();
  CLI::Option* mixer = app.add_option("--mixer", flags.mixer, "With --only: lru, gru or attention")
                           ->check(CLI::IsMember({"lru", "gru", "attention"}))
                           ->capture_default_str();
  CLI::Option* dropout =
      app.add_option("--dropout", flags.dropout, "With --only")->capture_default_str();
  CLI::Option* only = app.add_option("--only", flags.only,
                                     "One part: compare, plain, nestrec or bfloat16; prints JSON");
  mixer->needs(only);  // the plain step is an LRU's, without dropout
  dropout->needs(only);
  app.add_flag("--json", flags.json, "One object per row");
  CLI11_PARSE(app, argc, argv);
  at::set_num_threads(flags.threads > 0
                          ? flags.threads
                          : static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  torch::manual_seed(3);
  if ((flags.only == "compare" || flags.only == "plain") &&
      (flags.mixer != "lru" || flags.dropout > 0)) {
    std::fprintf(stderr, "error: the plain step is an LRU's, without dropout\n");
    return 2;
  }
  if (!flags.only.empty()) {
    const Json json =
        flags.only == "compare" ? CompareGradients(flags) : Measure(flags, flags.only == "plain");
    std::printf("%s\n", json.dump().c_str());
    return 0;
  }

  const absl::StatusOr<Json> agreement = RunPart("compare", flags);
  const absl::StatusOr<Json> ours = RunPart("nestrec", flags);
  const absl::StatusOr<Json> plain = RunPart("plain", flags);
  const absl::StatusOr<Json> rounded =
      HasBfloat16() ? RunPart("bfloat16", flags) : absl::StatusOr<Json>(Json());
  for (const auto* part : {&agreement, &ours, &plain, &rounded}) {
    if (!part->ok()) {
      std::fprintf(stderr, "error: %s\n", std::string(part->status().message()).c_str());
      return 1;
    }
  }
  const double seconds = (*ours)["step_seconds"];
  const double gflops = (*ours)["flops"].get<double>() / seconds / 1e9;
  const double product = (*ours)["product_gflops"];
  const double speedup = (*plain)["step_seconds"].get<double>() / seconds;
  const double memory =
      (*ours)["memory_bytes"].get<double>() / (*plain)["memory_bytes"].get<double>();
  if (flags.json) {
    Json row;
    row["dim"] = flags.dim;
    row["agreement"] = *agreement;
    row["nestrec"] = *ours;
    row["plain"] = *plain;
    row["bfloat16"] = *rounded;
    row["speedup"] = speedup;
    row["memory_ratio"] = memory;
    row["share_of_peak"] = gflops / product;
    std::printf("%s\n", row.dump().c_str());
    return 0;
  }
  std::printf("batch %d (%d positions), sizes 8..%d, %d items, %d feature columns, %d thread%s\n",
              flags.batch, (*ours)["positions"].get<int>(), flags.dim, flags.items, flags.features,
              at::get_num_threads(), at::get_num_threads() == 1 ? "" : "s");
  std::printf(
      "loss %.6f, plain %.6f; largest gradient difference %.1e of a tensor's maximum (%s)\n\n",
      (*agreement)["loss"].get<double>(), (*agreement)["plain_loss"].get<double>(),
      (*agreement)["worst_gradient_difference"].get<double>(),
      (*agreement)["worst_gradient"].get<std::string>().c_str());
  std::printf("%-10s %10s %12s %12s\n", "", "s a step", "of plain", "scratch MiB");
  std::printf("%-10s %10.3f %12s %12.0f\n", "plain", (*plain)["step_seconds"].get<double>(), "1",
              (*plain)["memory_bytes"].get<double>() / (1 << 20));
  std::printf("%-10s %10.3f %11.1fx %12.0f   1/%.0f\n", "nestrec", seconds, speedup,
              (*ours)["memory_bytes"].get<double>() / (1 << 20), 1 / memory);
  if (!rounded->is_null()) {
    const double rounded_seconds = (*rounded)["step_seconds"];
    std::printf("%-10s %10.3f %11.1fx %12.0f   loss off by %.1e\n", "bfloat16", rounded_seconds,
                (*plain)["step_seconds"].get<double>() / rounded_seconds,
                (*rounded)["memory_bytes"].get<double>() / (1 << 20),
                std::abs((*rounded)["loss"].get<double>() / (*ours)["loss"].get<double>() - 1));
  } else {
    std::printf("bfloat16: this processor does not multiply it\n");
  }
  std::printf("\n");
  std::printf(
      "nestrec's step: network forward %.0f ms, loss and its gradients %.0f, network "
      "backward %.0f, optimizer %.0f\n",
      1e3 * (*ours)["forward_seconds"].get<double>(), 1e3 * (*ours)["loss_seconds"].get<double>(),
      1e3 * (*ours)["backward_seconds"].get<double>(),
      1e3 * (*ours)["optimizer_seconds"].get<double>());
  std::printf(
      "%.1f GFLOP in matrix products, %.0f GFLOP/s: %.0f%% of the %.0f that %s\nreaches in a "
      "square product (medians, in turns)\n",
      (*ours)["flops"].get<double>() / 1e9, gflops, 100 * gflops / product, product, GemmBackend());
  return 0;
}

}  // namespace
}  // namespace nestrec

int main(int argc, char** argv) { return nestrec::Main(argc, argv); }
