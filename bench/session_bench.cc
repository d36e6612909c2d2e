// What one more event of a session costs, against encoding the user's last items from the start.
//
//   session_bench [--model m.safetensors] [--dim 1024] [--blocks 1] [--history 50] [--rounds 30]
//                 [--json]
//
// Without a model: one of random weights, with sizes 8, 16, ... up to --dim.
//
// One core. `step` carries the states of sessions on by one event. `encode` is the better of the
// encoder and of the stepper from no state, on the same items: the best stateless encoding. The two
// take turns in every round, so that the machine's noise falls on both alike; figures are medians,
// ratios of medians of one run. Where weights are "in cache", the same work has just been done
// once; where they are "in memory", a buffer larger than the caches has just been read, which
// leaves neither weights nor code in them. Bandwidth is measured in the same rounds: how fast the
// same core reads as many bytes as a step's weights have out of that buffer.
#include <omp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/random.h"
#include "base/status_macros.h"
#include "bench/timing.h"
#include "model/checkpoint.h"
#include "model/encoder.h"
#include "model/model_view.h"
#include "model/row_products.h"
#include "model/stepper.h"

namespace nestrec {
namespace {

constexpr size_t kLargeBytes = size_t{256} << 20;  // more than the caches of today's machines
constexpr int64_t kItems = 12'101;                 // of the random model

struct Flags {
  std::string model;
  int dim = 1024;
  int blocks = 1;
  int history = 50;
  int rounds = 30;
  bool json = false;
};

// A model to encode with, and what keeps it alive.
struct Model {
  std::shared_ptr<const Checkpoint> checkpoint;
  std::vector<std::vector<float>> tensors;
  std::unique_ptr<const Encoder> encoder;
  std::unique_ptr<const Stepper> stepper;
};

// Weights in the ranges of an untrained model; lambdas of the published recipe (at most 0.32), so
// that sessions run on.
absl::Status MakeRandom(const Flags& flags, Model& model) {
  NESTREC_ASSIGN_OR_RETURN(NestedSizes sizes, NestedSizes::Doubling(flags.dim));
  ModelView view = EmptyView(std::move(sizes), flags.blocks, kItems + 1, flags.history);
  Random random(1);
  for (int level = 0; level < view.sizes.levels(); ++level) {
    NESTREC_RETURN_IF_ERROR(VisitLevel(
        view, /*feature_width=*/1, level,
        [&](const std::string& name, const std::vector<int64_t>& shape,
            std::span<const float>& values) {
          int64_t count = 1;
          for (const int64_t length : shape) count *= length;
          std::vector<float>& tensor = model.tensors.emplace_back(static_cast<size_t>(count));
          const double range = shape.size() == 2 ? 1 / std::sqrt(static_cast<double>(shape[1])) : 1;
          const bool is_nu = name.find("nu_log") != std::string::npos;
          for (float& value : tensor) {
            value = static_cast<float>(is_nu ? std::log(-std::log(random.Uniform(0.01, 0.32)))
                                             : random.Uniform(-range, range));
          }
          values = tensor;
          return absl::OkStatus();
        }));
  }
  NESTREC_ASSIGN_OR_RETURN(model.encoder, Encoder::Create(std::move(view), nullptr));
  return absl::OkStatus();
}

absl::StatusOr<Model> MakeModel(const Flags& flags) {
  Model model;
  if (flags.model.empty()) {
    NESTREC_RETURN_IF_ERROR(MakeRandom(flags, model));
  } else {
    NESTREC_ASSIGN_OR_RETURN(model.checkpoint, Checkpoint::Open(flags.model, {}));
    NESTREC_ASSIGN_OR_RETURN(model.encoder,
                             Encoder::Create(model.checkpoint->view(), model.checkpoint));
  }
  NESTREC_ASSIGN_OR_RETURN(model.stepper, Stepper::Create(model.encoder.get()));
  return model;
}

// Reads all of `values` with the processor's widest vectors: a product with few columns to keep.
double Read(std::span<const float> values, std::vector<float>& x) {
  constexpr int64_t kColumns = 4096;
  const int64_t rows = static_cast<int64_t>(values.size()) / kColumns;
  x.resize(static_cast<size_t>(kColumns + rows), 0.5f);
  MultiplyRows({.x = x.data(),
                .x_stride = kColumns,
                .weight = values.data(),
                .bias = nullptr,
                .y = x.data() + kColumns,
                .y_stride = rows,
                .rows = 1,
                .outputs = rows,
                .columns = kColumns});
  return x.back();
}

struct Row {
  int dim, batch;
  bool in_cache;
  int64_t step_flops, encode_flops, step_bytes;
  std::vector<double> step_us, encoder_us, replay_us, read_us;  // read: step_bytes of memory

  double step() const { return Median(step_us); }
  double encode() const { return std::min(Median(encoder_us), Median(replay_us)); }
  // GB/s; only what a batch of one shows.
  double step_bandwidth() const { return static_cast<double>(step_bytes) / step() / 1000; }
  double read_bandwidth() const { return static_cast<double>(step_bytes) / Median(read_us) / 1000; }
};

// Sessions that have had `history` events, one less than the model reads, and their next one.
class Sessions {
 public:
  Sessions(const Stepper& stepper, int batch, int levels, int history, int64_t items)
      : stepper_(stepper), levels_(levels), history_(history), states_(static_cast<size_t>(batch)) {
    Random random(7);
    for (int session = 0; session < batch; ++session) {
      std::vector<int32_t>& log = logs_.emplace_back();
      for (int i = 0; i < history + 1; ++i) {
        log.push_back(static_cast<int32_t>(1 + random.Index(items)));
      }
    }
  }

  // The states before the last event.
  absl::Status Prepare() {
    std::vector<SessionOutput> outputs(states_.size());
    NESTREC_RETURN_IF_ERROR(stepper_.Run(Inputs(/*events=*/history_, nullptr), outputs));
    for (size_t i = 0; i < states_.size(); ++i) states_[i] = std::move(outputs[i].state);
    return absl::OkStatus();
  }
  // Carried on by one event.
  std::vector<SessionInput> Next() const { return Inputs(history_ + 1, &states_); }
  std::vector<SessionInput> FromZero() const { return Inputs(history_ + 1, nullptr); }

 private:
  std::vector<SessionInput> Inputs(int events, const std::vector<SessionState>* states) const {
    std::vector<SessionInput> inputs;
    for (size_t i = 0; i < logs_.size(); ++i) {
      const History log = History(logs_[i]).first(static_cast<size_t>(events));
      inputs.push_back({.state = states == nullptr ? nullptr : &(*states)[i],
                        .items = log,
                        .end = events,
                        .more = {},
                        .levels = levels_});
    }
    return inputs;
  }

  const Stepper& stepper_;
  const int levels_;
  const int history_;
  std::vector<std::vector<int32_t>> logs_;
  std::vector<SessionState> states_;
};

// The encoder's operations: all items up to the last block's recurrence, one item from there on.
int64_t EncodeFlops(const Stepper& stepper, int levels, int blocks, int history) {
  const int64_t layer = stepper.StepFlops(levels) / blocks / 7;
  return layer * (7 * (blocks - 1) * history + 2 * history + 5);
}

absl::StatusOr<Row> Measure(const Model& model, int levels, int batch, bool in_cache,
                            const Flags& flags, const std::vector<float>& large) {
  const ModelView& view = model.encoder->view();
  const int blocks = static_cast<int>(view.blocks.size());
  // States stay exact, so that a step is a step whatever the model forgets.
  const int history = std::min(flags.history, view.max_len) - 1;
  Row row{.dim = view.sizes.end(levels - 1),
          .batch = batch,
          .in_cache = in_cache,
          .step_flops = batch * model.stepper->StepFlops(levels),
          .encode_flops = batch * EncodeFlops(*model.stepper, levels, blocks, history + 1),
          .step_bytes = model.stepper->StepBytes(levels)};
  Sessions sessions(*model.stepper, batch, levels, history, view.item_rows - 1);
  NESTREC_RETURN_IF_ERROR(sessions.Prepare());
  const std::vector<SessionInput> next = sessions.Next();
  std::vector<SessionInput> all = sessions.FromZero();
  std::vector<History> histories;
  for (SessionInput& input : all) histories.push_back(input.items);
  std::vector<SessionOutput> outputs(static_cast<size_t>(batch));
  std::vector<float> z(static_cast<size_t>(batch * row.dim));
  std::vector<float> scratch;
  const auto read_floats = static_cast<size_t>(row.step_bytes) / sizeof(float);
  for (int round = 0; round < flags.rounds; ++round) {
    const size_t at = (static_cast<size_t>(round) * 7919 * 4096) % (large.size() - read_floats);
    const auto measure = [&](auto&& work, std::vector<double>& times) -> absl::Status {
      if (in_cache) {
        NESTREC_RETURN_IF_ERROR(work());
      } else {
        Read(large, scratch);
      }
      NESTREC_ASSIGN_OR_RETURN(const double us, Microseconds(work));
      times.push_back(us);
      return absl::OkStatus();
    };
    NESTREC_RETURN_IF_ERROR(
        measure([&] { return model.stepper->Run(next, outputs); }, row.step_us));
    NESTREC_RETURN_IF_ERROR(
        measure([&] { return model.encoder->Encode(histories, levels, z); }, row.encoder_us));
    NESTREC_RETURN_IF_ERROR(
        measure([&] { return model.stepper->Run(all, outputs); }, row.replay_us));
    NESTREC_RETURN_IF_ERROR(measure(
        [&] {
          Read(std::span(large).subspan(at, read_floats), scratch);
          return absl::OkStatus();
        },
        row.read_us));
  }
  return row;
}

void PrintTable(const std::vector<Row>& rows, const Flags& flags, const Model& model) {
  const ModelView& view = model.encoder->view();
  std::printf(
      "%s, %zu blocks; one event against the last %d items; one core, median of %d rounds\n",
      flags.model.empty() ? "random weights" : flags.model.c_str(), view.blocks.size(),
      std::min(flags.history, view.max_len), flags.rounds);
  std::printf("%-9s %6s %6s  %12s %9s  %12s %12s %9s  %9s %9s %7s\n", "weights", "dim", "batch",
              "step MFLOP", "ratio", "step us", "encode us", "ratio", "GB/s", "read GB/s", "share");
  for (const Row& row : rows) {
    std::printf("%-9s %6d %6d  %12.3f %8.1fx  %12.2f %12.2f %8.1fx",
                row.in_cache ? "in cache" : "in memory", row.dim, row.batch,
                static_cast<double>(row.step_flops) / 1e6,
                static_cast<double>(row.encode_flops) / static_cast<double>(row.step_flops),
                row.step(), row.encode(), row.encode() / row.step());
    if (row.batch == 1 && !row.in_cache) {
      std::printf("  %9.1f %9.1f %6.0f%%", row.step_bandwidth(), row.read_bandwidth(),
                  100 * row.step_bandwidth() / row.read_bandwidth());
    }
    std::printf("\n");
  }
}

void PrintJson(const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    nlohmann::ordered_json json;
    json["dim"] = row.dim;
    json["batch"] = row.batch;
    json["weights"] = row.in_cache ? "cache" : "memory";
    json["step_flops"] = row.step_flops;
    json["encode_flops"] = row.encode_flops;
    json["step_us"] = row.step();
    json["encoder_us"] = Median(row.encoder_us);
    json["replay_us"] = Median(row.replay_us);
    json["encode_over_step"] = row.encode() / row.step();
    json["step_bytes"] = row.step_bytes;
    json["step_gb_per_s"] = row.step_bandwidth();
    json["read_gb_per_s"] = row.read_bandwidth();
    std::printf("%s\n", json.dump().c_str());
  }
}

absl::Status Run(const Flags& flags) {
  omp_set_num_threads(1);
  NESTREC_ASSIGN_OR_RETURN(const Model model, MakeModel(flags));
  const std::vector<float> large(kLargeBytes / sizeof(float), 0.25f);
  std::vector<Row> rows;
  for (const bool in_cache : {true, false}) {
    for (const int batch : {1, 32}) {
      for (int levels = 1; levels <= model.encoder->sizes().levels(); ++levels) {
        NESTREC_ASSIGN_OR_RETURN(Row row, Measure(model, levels, batch, in_cache, flags, large));
        rows.push_back(std::move(row));
      }
    }
  }
  if (flags.json) {
    PrintJson(rows);
  } else {
    PrintTable(rows, flags, model);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace nestrec

int main(int argc, char** argv) {
  nestrec::Flags flags;
  CLI::App app("One more event of a session against encoding its items from the start.");
  app.add_option("--model", flags.model, "Checkpoint; none: random weights");
  app.add_option("--dim", flags.dim, "Widest size of random weights")->check(CLI::Range(8, 8192));
  app.add_option("--blocks", flags.blocks, "Blocks of random weights")->check(CLI::Range(1, 16));
  app.add_option("--history", flags.history, "Items of a session")->check(CLI::Range(2, 10000));
  app.add_option("--rounds", flags.rounds, "Measurements")->check(CLI::Range(1, 1000000));
  app.add_flag("--json", flags.json, "One JSON object per row");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = nestrec::Run(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return 1;
}
