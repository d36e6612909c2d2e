#include "model/evaluator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "model/encoder.h"
#include "model/item_ranks.h"
#include "tests/testing/random_model.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::shared_ptr<Dataset> MakeDataset(const std::vector<std::vector<int32_t>>& sequences,
                                     int items) {
  auto dataset = std::make_shared<Dataset>();
  dataset->offsets.push_back(0);
  for (size_t user = 0; user < sequences.size(); ++user) {
    dataset->user_ids.push_back(absl::StrCat("u", user));
    dataset->interactions.insert(dataset->interactions.end(), sequences[user].begin(),
                                 sequences[user].end());
    dataset->offsets.push_back(static_cast<int64_t>(dataset->interactions.size()));
  }
  std::vector<std::string> ids, records;
  for (int item = 1; item <= items; ++item) {
    ids.push_back(absl::StrCat("i", item));
    records.push_back("{}");
  }
  dataset->catalogue = std::make_shared<const Catalogue>(*Catalogue::Create(ids, records));
  return dataset;
}

// Scores that depend on (history, item) through a fixed random table, at two sizes; coarse, so that
// ties are common.
class TableScorer : public Scorer {
 public:
  explicit TableScorer(int items) : items_(items) {}
  std::string name() const override { return "table"; }
  std::vector<int> dims() const override { return {4, 8}; }
  float At(int size, History history, int32_t item) const {
    Random random(static_cast<uint64_t>(history.empty() ? 0 : history.back()) * 1000 +
                      static_cast<uint64_t>(item),
                  static_cast<uint64_t>(size));
    return static_cast<float>(random.Index(6));
  }
  absl::Status Score(std::span<const History> histories, Visitor visit) const override {
    for (int size = 0; size < 2; ++size) {
      std::vector<float> scores;
      for (const History& history : histories) {
        for (int32_t item = 0; item <= items_; ++item)
          scores.push_back(item == 0 ? 1e9f : At(size, history, item));
      }
      if (absl::Status status = visit(size, scores); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  int items_;
};

// The definition: sort all items by (score down, number up) and look where the target stands.
int64_t SortedRank(const TableScorer& scorer, int size, History history, int32_t target, int items,
                   bool mask_seen) {
  std::vector<int32_t> order;
  for (int32_t item = 1; item <= items; ++item) {
    if (mask_seen && std::find(history.begin(), history.end(), item) != history.end()) continue;
    order.push_back(item);
  }
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return scorer.At(size, history, a) > scorer.At(size, history, b);
  });
  const auto at = std::find(order.begin(), order.end(), target);
  return at == order.end() ? std::numeric_limits<int64_t>::max() : at - order.begin() + 1;
}

TEST(Evaluator, MatchesBruteForceForEveryUserAndSize) {
  constexpr int kItems = 40;
  Random random(2);
  std::vector<std::vector<int32_t>> sequences;
  for (int user = 0; user < 157; ++user) {
    std::vector<int32_t>& sequence = sequences.emplace_back();
    const int64_t events = random.Index(12);
    for (int64_t e = 0; e < events; ++e)
      sequence.push_back(static_cast<int32_t>(1 + random.Index(kItems)));
  }
  const auto dataset = MakeDataset(sequences, kItems);
  const TableScorer scorer(kItems);
  for (const Split split : {Split::kValidation, Split::kTest}) {
    EvaluationOptions options;
    options.split = split;
    options.users_per_chunk = 10;
    options.threads = 3;
    const auto evaluation = Evaluate(scorer, *dataset, options);
    ASSERT_TRUE(evaluation.ok()) << evaluation.status();
    for (int size = 0; size < 2; ++size) {
      std::vector<int64_t> all, masked;
      for (const std::vector<int32_t>& sequence : sequences) {
        if (sequence.size() < 3) continue;
        const History history = HistoryOf(sequence, split);
        all.push_back(SortedRank(scorer, size, history, TargetOf(sequence, split), kItems, false));
        masked.push_back(
            SortedRank(scorer, size, history, TargetOf(sequence, split), kItems, true));
      }
      EXPECT_EQ(evaluation->ranks[static_cast<size_t>(size)], all);
      EXPECT_EQ(evaluation->users, static_cast<int64_t>(all.size()));
      EXPECT_EQ(evaluation->users + evaluation->skipped_users, dataset->users());
      EXPECT_EQ(evaluation->sizes[static_cast<size_t>(size)].metrics.mrr, MetricsOfRanks(all).mrr);
      EXPECT_EQ(evaluation->seen_masked[static_cast<size_t>(size)].metrics.ndcg,
                MetricsOfRanks(masked).ndcg);
    }
  }
}

// A model's ranks are counted without its scores; these are counted from them.
TEST(Evaluator, AModelsRanksAreThoseOfItsScores) {
  constexpr int kItems = 203;
  const RandomModel model({.sizes = {8, 16, 32}, .items = kItems, .max_len = 6});
  const auto encoder = *Encoder::Create(model.view(), nullptr);
  Random random(5);
  std::vector<std::vector<int32_t>> sequences(131);
  for (std::vector<int32_t>& sequence : sequences) {
    const int64_t events = 3 + random.Index(8);
    for (int64_t e = 0; e < events; ++e)
      sequence.push_back(static_cast<int32_t>(1 + random.Index(kItems)));
  }
  const auto dataset = MakeDataset(sequences, kItems);
  for (const int levels : {3, 2}) {
    const ModelScorer scorer(encoder.get(), levels);
    EvaluationOptions options;
    options.split = Split::kTest;
    options.users_per_chunk = 50;
    const auto evaluation = Evaluate(scorer, *dataset, options);
    ASSERT_TRUE(evaluation.ok()) << evaluation.status();
    std::vector<History> histories;
    for (const auto& sequence : sequences) histories.push_back(HistoryOf(sequence, options.split));
    std::vector<std::vector<int64_t>> masked(static_cast<size_t>(levels));
    const auto compare = [&](int size, std::span<const float> scores) {
      for (size_t u = 0; u < sequences.size(); ++u) {
        const auto row = scores.subspan(u * (kItems + 1), kItems + 1);
        const int32_t target = TargetOf(sequences[u], options.split);
        const float score = row[static_cast<size_t>(target)];
        // The two may add up in another order: a rank may lie anywhere among scores this near.
        const float near = 1e-5f * (1 + std::abs(score));
        const auto above = [&](float limit) {
          return std::count_if(row.begin() + 1, row.end(), [&](float s) { return s > limit; });
        };
        const int64_t rank = evaluation->ranks[static_cast<size_t>(size)][u];
        EXPECT_GT(rank, above(score + near));
        EXPECT_LE(rank, above(score - near));
        const std::set<int32_t> seen(histories[u].begin(), histories[u].end());
        const int64_t before = std::count_if(seen.begin(), seen.end(), [&](int32_t item) {
          return row[static_cast<size_t>(item)] > score;
        });
        masked[static_cast<size_t>(size)].push_back(
            seen.contains(target) ? std::numeric_limits<int64_t>::max() : rank - before);
      }
      return absl::OkStatus();
    };
    ASSERT_TRUE(scorer.Score(histories, compare).ok());
    ASSERT_EQ(evaluation->seen_masked.size(), static_cast<size_t>(levels));
    for (size_t size = 0; size < masked.size(); ++size) {
      EXPECT_EQ(evaluation->seen_masked[size].metrics.mrr, MetricsOfRanks(masked[size]).mrr);
    }
  }
}

// With so many positions that a table of the items' inputs is made, and with a scorer that has
// none.
TEST(Evaluator, ATableOfInputsChangesNoRank) {
  class Unprepared : public ModelScorer {
   public:
    using ModelScorer::ModelScorer;
    std::unique_ptr<const Scorer> PreparedFor(int64_t) const override { return nullptr; }
  };
  const RandomModel model({.sizes = {8, 16}, .blocks = 2, .items = 50});
  const auto encoder = *Encoder::Create(model.view(), nullptr);
  Random random(6);
  std::vector<std::vector<int32_t>> sequences(60);
  for (std::vector<int32_t>& sequence : sequences) {
    for (int e = 0; e < 9; ++e) sequence.push_back(static_cast<int32_t>(1 + random.Index(50)));
  }
  const auto dataset = MakeDataset(sequences, 50);
  const ModelScorer scorer(encoder.get());
  ASSERT_NE(scorer.PreparedFor(60 * 7), nullptr);
  EXPECT_EQ(scorer.PreparedFor(60), nullptr);
  const auto with_table = Evaluate(scorer, *dataset, {});
  const auto without = Evaluate(Unprepared(encoder.get()), *dataset, {});
  ASSERT_TRUE(with_table.ok() && without.ok());
  EXPECT_EQ(with_table->ranks, without->ranks);
}

TEST(Evaluator, AModelOfOtherItemsIsRefused) {
  const RandomModel model({.sizes = {8, 16}, .items = 30});
  const auto encoder = *Encoder::Create(model.view(), nullptr);
  EXPECT_THAT(
      Evaluate(ModelScorer(encoder.get()), *MakeDataset({{1, 2, 3}}, 31), {}).status().message(),
      HasSubstr("scores 30 items, but the data has 31"));
}

TEST(Evaluator, RankBreaksTiesByItemNumberAndIgnoresPadding) {
  const std::vector<float> scores = {9, 1, 3, 3, 3, 0};
  EXPECT_EQ(RankOf(scores, 2), 1);
  EXPECT_EQ(RankOf(scores, 3), 2);
  EXPECT_EQ(RankOf(scores, 4), 3);
  EXPECT_EQ(RankOf(scores, 1), 4);
  EXPECT_EQ(RankOf(scores, 5), 5);
}

TEST(Evaluator, PopularityCountsTrainingItemsOnly) {
  // Held out: the last two of each user with at least three events.
  const auto dataset = MakeDataset({{1, 2, 3, 3}, {1, 4, 4}, {2, 2}}, 4);
  const PopularityScorer scorer(*dataset);
  const std::vector<int32_t> history = {1};
  const std::vector<History> histories = {history};
  ASSERT_TRUE(scorer
                  .Score(histories,
                         [](int, std::span<const float> scores) {
                           EXPECT_THAT(std::vector<float>(scores.begin() + 1, scores.end()),
                                       ElementsAre(2, 3, 0, 0));
                           return absl::OkStatus();
                         })
                  .ok());
}

TEST(Evaluator, CoVisitsNormaliseByHowManyUsersHoldEachItem) {
  const auto dataset = MakeDataset({{1, 2, 9, 9}, {1, 2, 3, 9, 9}, {1, 9, 9}}, 9);
  const CoVisitScorer scorer(*dataset);
  const std::vector<int32_t> history = {5, 2};
  const std::vector<History> histories = {history};
  ASSERT_TRUE(scorer
                  .Score(histories,
                         [](int, std::span<const float> scores) {
                           EXPECT_FLOAT_EQ(scores[1], 2.0f / std::sqrt(3.0f * 2.0f));
                           EXPECT_FLOAT_EQ(scores[3], 1.0f / std::sqrt(1.0f * 2.0f));
                           EXPECT_FLOAT_EQ(scores[2], 0.0f);  // itself
                           return absl::OkStatus();
                         })
                  .ok());
}

TEST(Evaluator, ContentNeighboursAreCosines) {
  const auto dataset = MakeDataset({{1, 2, 3}}, 3);
  dataset->modalities.push_back({"text", {.rows = 3, .columns = 2, .values = {1, 0, 5, 5, 0, 0}}});
  const auto scorer = ContentNeighbourScorer::Create(*dataset);
  ASSERT_TRUE(scorer.ok());
  const std::vector<int32_t> history = {1};
  const std::vector<History> histories = {history, History()};
  ASSERT_TRUE((*scorer)
                  ->Score(histories,
                          [](int, std::span<const float> scores) {
                            EXPECT_LT(scores[1], -1.0f);  // the last item itself
                            EXPECT_NEAR(scores[2], std::sqrt(0.5f), 1e-6);
                            EXPECT_EQ(scores[3], 0.0f);
                            EXPECT_EQ(scores[4 + 2], 0.0f);  // empty history
                            return absl::OkStatus();
                          })
                  .ok());
  EXPECT_EQ(ContentNeighbourScorer::Create(*MakeDataset({{1, 2, 3}}, 3)).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(Evaluator, ErrorsAreClear) {
  const TableScorer scorer(5);
  EXPECT_THAT(Evaluate(scorer, *MakeDataset({{1, 2}}, 5), {}).status().message(),
              HasSubstr("none of the 1 users"));
  EXPECT_THAT(Evaluate(scorer, *MakeDataset({{1, 2, 3}}, 7), {}).status().message(),
              HasSubstr("scores 5 items, but the data has 7"));
  EvaluationOptions options;
  options.progress = [](int64_t, int64_t) { return false; };
  EXPECT_EQ(Evaluate(scorer, *MakeDataset({{1, 2, 3}}, 5), options).status().code(),
            absl::StatusCode::kCancelled);
}

class NanScorer : public TableScorer {
 public:
  using TableScorer::TableScorer;
  absl::Status Score(std::span<const History> histories, Visitor visit) const override {
    const std::vector<float> scores(histories.size() * 6, std::numeric_limits<float>::quiet_NaN());
    return visit(0, scores);
  }
};

TEST(Evaluator, AScoreThatIsNotANumberIsAnError) {
  EXPECT_THAT(Evaluate(NanScorer(5), *MakeDataset({{1, 2, 3}}, 5), {}).status().message(),
              HasSubstr("not a number"));
}

}  // namespace
}  // namespace nestrec
