// Whether nestrec's trainer learns what the plain formulas learn: both train on the same data with
// the same recipe, seeds, initial weights and order, and are compared user by user on the test
// items.
//
//   parity --data beauty [--sizes 8,16,32,64] [--epochs 3] [--seeds 3] [--first-seed 1] [--json]
//   parity --data beauty --plain-items unit                # the plain side with an idea of its own
//   parity --data beauty --plain-schedule narrow_first
//   parity --data ml-1m --plain-modality-dropout 0.3
//
// The plain side is bench/plain_network.h under autograd with libtorch's AdamW and clipping; it
// shares none of nestrec's arithmetic. The two draw other dropout masks, so they agree but for
// noise. For every size: NDCG@10 of both, mean over seeds, and the 95% interval of the difference
// by a paired bootstrap over users (Efron & Tibshirani 1993, section 13.3: percentiles).
//
// The --plain- flags change the plain side alone, which is the cheap place to try what the trainer
// does not have: items of norm sqrt(s) at every size s, a loss that begins with the narrowest size
// and gains one after the other, steps that read items without one of their modalities.
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/random.h"
#include "base/status_macros.h"
#include "bench/plain_network.h"
#include "model/checkpoint.h"
#include "model/dataset.h"
#include "model/encoder.h"
#include "model/evaluator.h"
#include "model/features.h"
#include "model/network.h"
#include "model/recipe.h"
#include "model/trainer.h"

namespace nestrec {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;
// [size][user]: 1-based ranks of the test items.
using Ranks = std::vector<std::vector<int64_t>>;

constexpr int kCutoff = 10;
constexpr int kResamples = 2000;

struct Flags {
  std::string data;
  std::string sizes = "8,16,32,64";
  Recipe recipe;
  int seeds = 3;
  int first_seed = 1;
  std::string plain_items = "as_they_are";
  std::string plain_schedule = "all_sizes";
  double plain_modality_dropout = 0;
  bool json = false;
};

struct Side {
  std::vector<std::vector<double>> ndcg;  // [size][user], summed over seeds
  double seconds = 0;                     // of training, evaluation left out

  void Add(const Ranks& ranks) {
    ndcg.resize(ranks.size());
    for (size_t size = 0; size < ranks.size(); ++size) {
      ndcg[size].resize(ranks[size].size(), 0.0);
      for (size_t user = 0; user < ranks[size].size(); ++user) {
        const int64_t rank = ranks[size][user];
        if (rank <= kCutoff) ndcg[size][user] += 1.0 / std::log2(static_cast<double>(rank) + 1.0);
      }
    }
  }
};

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// The 2.5% and 97.5% percentiles of the resampled mean of `differences`.
std::pair<double, double> Interval(const std::vector<double>& differences) {
  Random random(7, 0);
  std::vector<double> means;
  for (int i = 0; i < kResamples; ++i) {
    double sum = 0;
    for (size_t j = 0; j < differences.size(); ++j) {
      sum += differences[random.Next() % differences.size()];
    }
    means.push_back(sum / static_cast<double>(differences.size()));
  }
  std::sort(means.begin(), means.end());
  return {means[kResamples / 40], means[kResamples - 1 - kResamples / 40]};
}

// Another scorer's scores over the norms of the items at each size.
class UnitItemScorer : public Scorer {
 public:
  // norms [size][items + 1]
  UnitItemScorer(const Scorer* scorer, std::vector<std::vector<float>> norms)
      : scorer_(scorer), norms_(std::move(norms)) {}
  std::string name() const override { return "unit items"; }
  std::vector<int> dims() const override { return scorer_->dims(); }
  absl::Status Score(std::span<const History> histories, Visitor visit) const override {
    return scorer_->Score(histories, [&](int size, std::span<const float> scores) {
      const std::vector<float>& norms = norms_[static_cast<size_t>(size)];
      std::vector<float> unit(scores.begin(), scores.end());
      for (size_t i = 0; i < unit.size(); ++i) {
        unit[i] /= std::max(norms[i % norms.size()], 1e-12f);
      }
      return visit(size, unit);
    });
  }

 private:
  const Scorer* scorer_;
  std::vector<std::vector<float>> norms_;
};

absl::StatusOr<Evaluation> EvaluateNetwork(Network& network, const torch::Tensor& features,
                                           const Dataset& dataset, Split split, bool unit_items) {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> levels;
  const torch::Tensor items = network.ItemEmbeddings(features);
  const ModelView view = network.View(items, levels);
  NESTREC_ASSIGN_OR_RETURN(const auto encoder, Encoder::Create(view, nullptr));
  const ModelScorer model(encoder.get());
  std::vector<std::vector<float>> norms;
  for (int level = 0; unit_items && level < view.sizes.levels(); ++level) {
    const torch::Tensor of_size = items.narrow(1, 0, view.sizes.end(level)).norm(2, 1).contiguous();
    norms.emplace_back(of_size.data_ptr<float>(), of_size.data_ptr<float>() + of_size.size(0));
  }
  const UnitItemScorer unit(&model, std::move(norms));
  const Scorer& scorer = unit_items ? static_cast<const Scorer&>(unit) : model;
  return Evaluate(scorer, dataset, {.split = split, .progress = nullptr});
}

PaddedBatch PadWindows(const Dataset& dataset, std::span<const TrainingWindow> windows,
                       int64_t max_len) {
  PackedBatch batch;
  std::vector<int64_t> row_begins = {0};
  for (const TrainingWindow& window : windows) {
    const PackedBatch row = PackWindows(dataset, std::span(&window, 1));
    batch.Append(row.tokens, row.labels);
    row_begins.push_back(batch.positions());
  }
  return Pad(batch, row_begins, max_len);
}

// The features once without each of the modalities.
std::vector<torch::Tensor> WithoutEach(const torch::Tensor& features, const Dataset& dataset) {
  std::vector<torch::Tensor> without;
  int64_t begin = 0;
  for (const Modality& modality : dataset.modalities) {
    without.push_back(features.clone());
    without.back().narrow(1, begin, modality.features.columns).zero_();
    begin += modality.features.columns;
  }
  return without;
}

// The plain formulas, with nestrec's initial weights of the same seed.
absl::StatusOr<Ranks> TrainPlain(const Dataset& dataset, const NestedSizes& sizes,
                                 const Recipe& recipe, const Flags& flags, double& seconds) {
  NESTREC_ASSIGN_OR_RETURN(Matrix matrix, ConcatenateFeatures(dataset, recipe.feature_scaling));
  const torch::Tensor features =
      torch::from_blob(matrix.values.data(), {matrix.rows, matrix.columns});
  Network network({.sizes = sizes,
                   .blocks = recipe.blocks,
                   .max_len = recipe.max_len,
                   .feature_width = matrix.columns,
                   .r_min = recipe.r_min,
                   .r_max = recipe.r_max},
                  Random(recipe.seed, 0));
  std::vector<torch::Tensor> decayed, biases;
  for (const NetworkParameters::Named& parameter : network.parameters().All()) {
    (parameter.is_bias ? biases : decayed).push_back(*parameter.tensor);
  }
  std::vector<torch::Tensor> all = decayed;
  all.insert(all.end(), biases.begin(), biases.end());
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(decayed, std::make_unique<torch::optim::AdamWOptions>(
                                   torch::optim::AdamWOptions(recipe.learning_rate)
                                       .eps(recipe.adam_epsilon)
                                       .weight_decay(recipe.weight_decay)));
  groups.emplace_back(biases, std::make_unique<torch::optim::AdamWOptions>(
                                  torch::optim::AdamWOptions(recipe.learning_rate)
                                      .eps(recipe.adam_epsilon)
                                      .weight_decay(0)));
  torch::optim::AdamW optimizer(groups);

  const std::vector<TrainingWindow> windows =
      MakeTrainingWindows(dataset, recipe.max_len, recipe.windows);
  const size_t batch_size = static_cast<size_t>(recipe.batch_size);
  const int64_t steps = static_cast<int64_t>((windows.size() + batch_size - 1) / batch_size);
  const bool unit_items = flags.plain_items == "unit";
  PlainVariant variant = {.unit_items = unit_items, .input_features = {}};
  std::vector<torch::Tensor> without;
  if (flags.plain_modality_dropout > 0) without = WithoutEach(features, dataset);
  Random modalities(recipe.seed, 1);
  int64_t step = 0;
  double best = -1;
  Ranks ranks;
  for (int epoch = 1; epoch <= recipe.epochs; ++epoch) {
    torch::manual_seed(1000 * recipe.seed + static_cast<uint64_t>(epoch));
    std::vector<TrainingWindow> order = windows;
    Random(recipe.seed, static_cast<uint64_t>(epoch)).Shuffle(std::span(order));
    const auto start = Clock::now();
    for (size_t begin = 0; begin < order.size(); begin += batch_size, ++step) {
      const PaddedBatch batch = PadWindows(
          dataset, std::span(order).subspan(begin, std::min(batch_size, order.size() - begin)),
          recipe.max_len);
      if (flags.plain_schedule == "narrow_first") {
        // The first half of the run gains a size at a time, the second has all.
        const int64_t gaining = std::max<int64_t>(steps * recipe.epochs / 2, 1);
        variant.levels = static_cast<int>(
            std::min<int64_t>(sizes.levels(), 1 + step * sizes.levels() / gaining));
      }
      if (!without.empty()) {
        const bool drops = modalities.Uniform() < flags.plain_modality_dropout;
        variant.input_features =
            drops ? without[modalities.Next() % without.size()] : torch::Tensor();
      }
      optimizer.zero_grad();
      PlainLoss(network.parameters(), sizes, batch, features, recipe.dropout, variant).backward();
      torch::nn::utils::clip_grad_norm_(all, recipe.clip_norm);
      for (auto& group : optimizer.param_groups()) {
        static_cast<torch::optim::AdamWOptions&>(group.options())
            .lr(recipe.LearningRateAt(step, steps * recipe.epochs));
      }
      optimizer.step();
    }
    seconds += std::chrono::duration<double>(Clock::now() - start).count();
    NESTREC_ASSIGN_OR_RETURN(
        const Evaluation validation,
        EvaluateNetwork(network, features, dataset, Split::kValidation, unit_items));
    const double ndcg = validation.sizes.back().metrics.ndcg[1];
    std::fprintf(stderr, "plain, seed %d, epoch %d: val NDCG@10 %.4f\n",
                 static_cast<int>(recipe.seed), epoch, ndcg);
    if (ndcg <= best) continue;
    best = ndcg;
    NESTREC_ASSIGN_OR_RETURN(Evaluation test,
                             EvaluateNetwork(network, features, dataset, Split::kTest, unit_items));
    ranks = std::move(test.ranks);
  }
  return ranks;
}

absl::StatusOr<Ranks> TrainNestrec(const Dataset& dataset, const NestedSizes& sizes,
                                   const Recipe& recipe, const std::string& path, double& seconds) {
  TrainingObserver observer;
  observer.on_epoch = [&](const EpochReport& report) {
    std::fprintf(stderr, "nestrec, seed %d, epoch %d: val NDCG@10 %.4f\n",
                 static_cast<int>(recipe.seed), report.epoch,
                 report.validation.back().metrics.ndcg[1]);
  };
  NESTREC_ASSIGN_OR_RETURN(
      const TrainingResult result,
      Train(dataset, {.sizes = sizes, .recipe = recipe, .output = path, .overwrite = true},
            observer));
  seconds += absl::ToDoubleSeconds(result.training_time);
  NESTREC_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(path, {}));
  NESTREC_ASSIGN_OR_RETURN(const auto encoder, Encoder::Create(checkpoint->view(), checkpoint));
  NESTREC_ASSIGN_OR_RETURN(Evaluation test, Evaluate(ModelScorer(encoder.get()), dataset,
                                                     {.split = Split::kTest, .progress = nullptr}));
  return std::move(test.ranks);
}

void Print(const Flags& flags, const NestedSizes& sizes, const Side& plain, const Side& ours) {
  if (!flags.json) {
    std::printf("%d epochs, batch %d, lr %g, dropout %g, max_len %d, %d seed%s from %d\n",
                flags.recipe.epochs, static_cast<int>(flags.recipe.batch_size),
                flags.recipe.learning_rate, flags.recipe.dropout, flags.recipe.max_len, flags.seeds,
                flags.seeds == 1 ? "" : "s", flags.first_seed);
    std::printf("%5s %14s %14s %12s  %s\n", "dim", "plain N@10", "nestrec N@10", "difference",
                "95% interval");
  }
  for (int level = 0; level < sizes.levels(); ++level) {
    const size_t at = static_cast<size_t>(level);
    std::vector<double> differences(plain.ndcg[at].size());
    for (size_t user = 0; user < differences.size(); ++user) {
      differences[user] = (ours.ndcg[at][user] - plain.ndcg[at][user]) / flags.seeds;
    }
    const auto [low, high] = Interval(differences);
    const double plain_mean = Mean(plain.ndcg[at]) / flags.seeds;
    const double our_mean = Mean(ours.ndcg[at]) / flags.seeds;
    const char* verdict = high < 0 ? "worse" : low > 0 ? "better" : "within noise";
    if (flags.json) {
      Json row;
      row["dim"] = sizes.end(level);
      row["plain_ndcg@10"] = plain_mean;
      row["nestrec_ndcg@10"] = our_mean;
      row["low"] = low;
      row["high"] = high;
      row["verdict"] = verdict;
      row["speedup"] = plain.seconds / ours.seconds;
      std::printf("%s\n", row.dump().c_str());
    } else {
      std::printf("%5d %14.4f %14.4f %+12.4f  %+.4f to %+.4f  %s\n", sizes.end(level), plain_mean,
                  our_mean, our_mean - plain_mean, low, high, verdict);
    }
  }
  if (!flags.json) {
    std::printf("training: plain %.0f s, nestrec %.0f s: %.1fx\n", plain.seconds, ours.seconds,
                plain.seconds / ours.seconds);
  }
}

absl::Status Compare(const Flags& flags) {
  NESTREC_ASSIGN_OR_RETURN(const NestedSizes sizes, NestedSizes::Parse(flags.sizes));
  NESTREC_RETURN_IF_ERROR(flags.recipe.Check());
  NESTREC_ASSIGN_OR_RETURN(const auto dataset, Dataset::Load(flags.data, {}));
  if (flags.plain_modality_dropout > 0 && dataset->modalities.size() < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("--plain-modality-dropout takes two modalities; ", flags.data, " has ",
                     dataset->modalities.size()));
  }
  at::set_num_threads(static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  char folder[] = "/tmp/parity.XXXXXX";
  if (mkdtemp(folder) == nullptr) return absl::InternalError("cannot make a folder in /tmp");
  Side plain, ours;
  absl::Status status;
  for (int run = 0; run < flags.seeds && status.ok(); ++run) {
    Recipe recipe = flags.recipe;
    recipe.seed = static_cast<uint64_t>(flags.first_seed + run);
    recipe.patience = recipe.epochs;
    const auto our_ranks =
        TrainNestrec(*dataset, sizes, recipe, absl::StrCat(folder, "/m.safetensors"), ours.seconds);
    const auto plain_ranks = Guard("train the plain network", [&] {
      return TrainPlain(*dataset, sizes, recipe, flags, plain.seconds);
    });
    status = our_ranks.ok() ? plain_ranks.status() : our_ranks.status();
    if (!status.ok()) break;
    ours.Add(*our_ranks);
    plain.Add(*plain_ranks);
  }
  std::filesystem::remove_all(folder);
  NESTREC_RETURN_IF_ERROR(status);
  Print(flags, sizes, plain, ours);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Flags flags;
  flags.recipe.learning_rate = 1e-3;  // of the published grid; 1e-4 needs far more epochs
  flags.recipe.epochs = 3;
  flags.recipe.max_len = 20;
  CLI::App app("Trains by nestrec and by the plain formulas, and compares what they learned.");
  app.add_option("--data", flags.data, "Data folder")->envname("NESTREC_DATA")->required();
  app.add_option("--sizes", flags.sizes, "Nested sizes")->capture_default_str();
  app.add_option("--epochs", flags.recipe.epochs, "Epochs of each run")->capture_default_str();
  app.add_option("--seeds", flags.seeds, "Runs of each side")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--first-seed", flags.first_seed, "Seed of the first run; the others follow it")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  app.add_option("--batch-size", flags.recipe.batch_size, "Sequences")->capture_default_str();
  app.add_option("--lr", flags.recipe.learning_rate, "Learning rate")->capture_default_str();
  app.add_option("--dropout", flags.recipe.dropout, "Dropout")->capture_default_str();
  app.add_option("--max-len", flags.recipe.max_len, "Items of a history")->capture_default_str();
  app.add_option("--plain-items", flags.plain_items,
                 "unit: the plain side scores by items of norm sqrt(s) at every size s")
      ->check(CLI::IsMember({"as_they_are", "unit"}))
      ->capture_default_str();
  app.add_option("--plain-schedule", flags.plain_schedule,
                 "narrow_first: the plain side's loss gains one size after the other")
      ->check(CLI::IsMember({"all_sizes", "narrow_first"}))
      ->capture_default_str();
  app.add_option("--plain-modality-dropout", flags.plain_modality_dropout,
                 "Share of the plain side's steps that read items without one modality")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_flag("--json", flags.json, "One object per row");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = Compare(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace
}  // namespace nestrec

int main(int argc, char** argv) { return nestrec::Main(argc, argv); }
