// What a full evaluation costs: every user's held-out item ranked among all items at every size,
// counted where the scores are made, against the same with all scores of a size kept and looked
// through; and the encoding that is part of both.
//
//   evaluation_bench --model m.safetensors --data DIR [--users 96] [--threads 0] [--rounds 3]
//
// All cores. The ways take turns in every round, so that the machine's noise falls on all alike;
// figures are medians over the rounds. Says how many of the ranks differ: sums in another order may
// swap items whose scores differ in the last bit.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

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

// Encodes the histories and ranks nothing.
class EncodingAlone : public Scorer {
 public:
  explicit EncodingAlone(const Encoder* encoder) : encoder_(encoder) {}
  std::string name() const override { return "encoding"; }
  std::vector<int> dims() const override { return {encoder_->sizes().max_dim()}; }
  absl::Status Score(std::span<const History>, Visitor) const override {
    return absl::UnimplementedError("only encodes");
  }
  absl::Status Rank(std::span<const RankQuery> queries, int64_t, RankVisitor visit) const override {
    std::vector<History> histories;
    for (const RankQuery& query : queries) histories.push_back(query.history);
    std::vector<float> z(queries.size() * static_cast<size_t>(encoder_->sizes().max_dim()));
    NESTREC_RETURN_IF_ERROR(encoder_->Encode(histories, encoder_->sizes().levels(), z));
    return visit(0, std::vector<TargetRank>(queries.size()));
  }

 private:
  const Encoder* encoder_;
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

  const ModelScorer counted(encoder.get());
  const KeptScores kept(encoder.get());
  const EncodingAlone encoding(encoder.get());
  const Scorer* const ways[] = {&counted, &kept, &encoding};
  std::vector<double> seconds[3];
  Evaluation evaluations[3];
  for (int round = 0; round < flags.rounds; ++round) {
    for (size_t way = 0; way < 3; ++way) {
      NESTREC_ASSIGN_OR_RETURN(const double microseconds, Microseconds([&]() -> absl::Status {
                                 NESTREC_ASSIGN_OR_RETURN(evaluations[way],
                                                          Evaluate(*ways[way], *dataset, options));
                                 return absl::OkStatus();
                               }));
      seconds[way].push_back(microseconds / 1e6);
    }
  }
  int64_t ranks = 0, different = 0;
  for (size_t size = 0; size < evaluations[0].ranks.size(); ++size) {
    for (size_t user = 0; user < evaluations[0].ranks[size].size(); ++user) {
      ++ranks;
      different += evaluations[0].ranks[size][user] != evaluations[1].ranks[size][user] ? 1 : 0;
    }
  }
  const double counted_seconds = Median(seconds[0]);
  const double kept_seconds = Median(seconds[1]);
  const double encoding_seconds = Median(seconds[2]);
  if (flags.json) {
    nlohmann::ordered_json json;
    json["users"] = evaluations[0].users;
    json["counted_seconds"] = counted_seconds;
    json["kept_seconds"] = kept_seconds;
    json["encoding_seconds"] = encoding_seconds;
    json["ranks"] = ranks;
    json["different_ranks"] = different;
    std::printf("%s\n", json.dump().c_str());
    return absl::OkStatus();
  }
  const auto line = [&](const char* what, double value) {
    std::printf("%-22s %8.2f s  %5.2f of scores kept\n", what, value, value / kept_seconds);
  };
  std::printf("%d users, %d sizes to %d, %d items\n", static_cast<int>(evaluations[0].users),
              encoder->sizes().levels(), encoder->sizes().max_dim(),
              static_cast<int>(dataset->items()));
  line("scores kept", kept_seconds);
  line("counted in one pass", counted_seconds);
  line("  of it, encoding", encoding_seconds);
  std::printf("%d of %d ranks differ\n", static_cast<int>(different), static_cast<int>(ranks));
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
