// What a full evaluation costs: every user's held-out item ranked among all items at every size,
// counted where the scores are made, with and without a table of the items' inputs (model/
// input_table.h), against the same with all scores of a size kept and looked through.
//
//   evaluation_bench --model m.safetensors --data DIR [--users 96] [--threads 0] [--rounds 3]
//
// All cores. The ways take turns in every round, so that the machine's noise falls on all alike;
// figures are medians over the rounds. Says how many of the ranks differ: sums in another order may
// swap items whose scores differ in the last bit.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "bench/timing.h"
#include "model/checkpoint.h"
#include "model/dataset.h"
#include "model/encoder.h"
#include "model/evaluator.h"
#include "model/scorer.h"

namespace nestrec {
namespace {

struct Flags {
  std::string model;
  std::string data;
  int64_t users = EvaluationOptions().users_per_chunk;
  int threads = 0;
  int rounds = 3;
  bool json = false;
};

// Of all threads of this process.
double ProcessorSeconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

// A model's scores, ranked as those of any other scorer.
class KeptScores : public Scorer {
 public:
  explicit KeptScores(const Encoder* encoder) : model_(encoder) {}
  std::string name() const override { return model_.name(); }
  std::vector<int> dims() const override { return model_.dims(); }
  absl::Status Score(std::span<const History> histories, Visitor visit) const override {
    return model_.Score(histories, visit);
  }

 private:
  ModelScorer model_;
};

// Counts ranks where scores are made, and encodes without a table of the items' inputs.
class WithoutTable : public ModelScorer {
 public:
  using ModelScorer::ModelScorer;
  std::unique_ptr<const Scorer> PreparedFor(int64_t) const override { return nullptr; }
};

absl::Status Run(const Flags& flags) {
  NESTREC_ASSIGN_OR_RETURN(const auto dataset,
                           Dataset::Load(flags.data, {.modalities = {}, .load_features = false}));
  NESTREC_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(flags.model, {}));
  NESTREC_ASSIGN_OR_RETURN(const auto encoder, Encoder::Create(checkpoint->view(), checkpoint));
  EvaluationOptions options;
  options.split = Split::kTest;
  options.threads = flags.threads;
  options.users_per_chunk = flags.users;

  const KeptScores kept(encoder.get());
  const WithoutTable counted(encoder.get());
  const ModelScorer with_table(encoder.get());
  const Scorer* const ways[] = {&kept, &counted, &with_table};
  std::vector<double> seconds[3];
  std::vector<double> processor_seconds[3];
  Evaluation evaluations[3];
  for (int round = 0; round < flags.rounds; ++round) {
    for (size_t way = 0; way < 3; ++way) {
      const double start = ProcessorSeconds();
      NESTREC_ASSIGN_OR_RETURN(const double microseconds, Microseconds([&]() -> absl::Status {
                                 NESTREC_ASSIGN_OR_RETURN(evaluations[way],
                                                          Evaluate(*ways[way], *dataset, options));
                                 return absl::OkStatus();
                               }));
      seconds[way].push_back(microseconds / 1e6);
      processor_seconds[way].push_back(ProcessorSeconds() - start);
    }
  }
  int64_t ranks = 0, different = 0;
  for (size_t size = 0; size < evaluations[0].ranks.size(); ++size) {
    for (size_t user = 0; user < evaluations[0].ranks[size].size(); ++user) {
      ++ranks;
      different += evaluations[0].ranks[size][user] != evaluations[2].ranks[size][user] ? 1 : 0;
    }
  }
  constexpr const char* kNames[] = {"scores kept", "counted at once", "with a table of inputs"};
  constexpr const char* kKeys[] = {"kept", "counted", "with_table"};
  nlohmann::ordered_json json;
  json["users"] = evaluations[0].users;
  json["ranks"] = ranks;
  json["different_ranks"] = different;
  if (!flags.json) {
    std::printf("%d users, %d sizes to %d, %d items\n%-24s %8s %8s %14s %8s\n",
                static_cast<int>(evaluations[0].users), encoder->sizes().levels(),
                encoder->sizes().max_dim(), static_cast<int>(dataset->items()), "", "s", "of it",
                "processor s", "of it");
  }
  for (size_t way = 0; way < 3; ++way) {
    const double wall = Median(seconds[way]);
    const double processor = Median(processor_seconds[way]);
    json[absl::StrCat(kKeys[way], "_seconds")] = wall;
    json[absl::StrCat(kKeys[way], "_processor_seconds")] = processor;
    if (flags.json) continue;
    std::printf("%-24s %8.2f %8.2f %14.2f %8.2f\n", kNames[way], wall, wall / Median(seconds[0]),
                processor, processor / Median(processor_seconds[0]));
  }
  if (flags.json) {
    std::printf("%s\n", json.dump().c_str());
  } else {
    std::printf("%d of %d ranks differ\n", static_cast<int>(different), static_cast<int>(ranks));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace nestrec

int main(int argc, char** argv) {
  nestrec::Flags flags;
  CLI::App app("What a full evaluation costs, and what of it is ranking.");
  app.add_option("--model", flags.model, "Checkpoint")->required();
  app.add_option("--data", flags.data, "Data folder that it was trained on")->required();
  app.add_option("--users", flags.users, "Ranked together by a thread")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_option("--threads", flags.threads, "0: all cores")->check(CLI::Range(0, 4096));
  app.add_option("--rounds", flags.rounds, "Measurements")->check(CLI::Range(1, 1000));
  app.add_flag("--json", flags.json, "One JSON object");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = nestrec::Run(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return 1;
}
