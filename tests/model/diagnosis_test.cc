#include "model/diagnosis.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "model/encoder.h"
#include "model/features.h"
#include "tests/testing/cycle_dataset.h"
#include "tests/testing/random_model.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kItems = 200;  // of a RandomModel by default

// `users` random sequences of up to `longest` events; items of low numbers are popular, the highest
// are almost never seen.
std::shared_ptr<Dataset> MakeRandomDataset(int users, int longest) {
  auto dataset = std::make_shared<Dataset>();
  Random random(3);
  dataset->offsets.push_back(0);
  for (int user = 0; user < users; ++user) {
    dataset->user_ids.push_back(absl::StrCat("u", user));
    const int64_t events = 1 + random.Index(longest);
    for (int64_t e = 0; e < events; ++e) {
      const double skewed = random.Uniform() * random.Uniform() * random.Uniform();
      dataset->interactions.push_back(1 + static_cast<int32_t>(skewed * kItems));
    }
    dataset->offsets.push_back(static_cast<int64_t>(dataset->interactions.size()));
  }
  std::vector<std::string> ids, records;
  for (int item = 1; item <= kItems; ++item) {
    ids.push_back(absl::StrCat("i", item));
    records.push_back("{}");
  }
  dataset->catalogue = std::make_shared<const Catalogue>(*Catalogue::Create(ids, records));
  dataset->fingerprint = "0000000000000000";  // a RandomModel's
  return dataset;
}

Matrix RandomFeatures(int64_t columns, uint64_t seed) {
  Matrix features{.rows = kItems, .columns = columns, .values = {}};
  Random random(seed);
  // Off centre, as encoders' vectors are.
  for (int64_t i = 0; i < kItems * columns; ++i)
    features.values.push_back(static_cast<float>(2 + random.Normal()));
  return features;
}

// Random ranks of the users that are evaluated, at two sizes.
std::vector<std::vector<int64_t>> RandomRanks(const Dataset& dataset) {
  std::vector<std::vector<int64_t>> ranks(2);
  Random random(4);
  for (int64_t user = 0; user < dataset.users(); ++user) {
    if (!IsEvaluated(dataset.sequence(user))) continue;
    for (auto& of_size : ranks) of_size.push_back(1 + random.Index(30));
  }
  return ranks;
}

// Users, and their metrics weighted by the users, must add up.
void ExpectAddsUp(const std::vector<DiagnosisRow>& rows,
                  const std::vector<std::vector<int64_t>>& ranks) {
  int64_t users = 0;
  for (const DiagnosisRow& row : rows) {
    EXPECT_GT(row.users, 0) << row.label;
    users += row.users;
  }
  EXPECT_EQ(users, static_cast<int64_t>(ranks[0].size()));
  for (size_t size = 0; size < ranks.size(); ++size) {
    const RankingMetrics whole = MetricsOfRanks(ranks[size]);
    for (size_t cutoff = 0; cutoff < kMetricCutoffs.size(); ++cutoff) {
      double recall = 0, ndcg = 0;
      for (const DiagnosisRow& row : rows) {
        EXPECT_EQ(row.metrics[size].users, row.users);
        recall += row.metrics[size].recall[cutoff] * static_cast<double>(row.users);
        ndcg += row.metrics[size].ndcg[cutoff] * static_cast<double>(row.users);
      }
      EXPECT_NEAR(recall / static_cast<double>(users), whole.recall[cutoff], 1e-12);
      EXPECT_NEAR(ndcg / static_cast<double>(users), whole.ndcg[cutoff], 1e-12);
    }
  }
}

std::vector<std::string> Labels(const std::vector<DiagnosisRow>& rows) {
  std::vector<std::string> labels;
  labels.reserve(rows.size());
  for (const DiagnosisRow& row : rows) labels.push_back(row.label);
  return labels;
}

const DiagnosisRow& Row(const std::vector<DiagnosisRow>& rows, const std::string& label) {
  const auto row = std::find_if(rows.begin(), rows.end(),
                                [&](const DiagnosisRow& r) { return r.label == label; });
  if (row == rows.end()) {
    ADD_FAILURE() << "no row " << label;
    static const DiagnosisRow none;
    return none;
  }
  return *row;
}

std::string LengthLabel(size_t length) {
  return length < 3     ? "1-2"
         : length < 5   ? "3-4"
         : length < 10  ? "5-9"
         : length < 20  ? "10-19"
         : length < 50  ? "20-49"
         : length < 100 ? "50-99"
                        : "100+";
}

TEST(Diagnosis, HistoryLengthsAreThoseOfTheEvaluatedHistory) {
  const auto dataset = MakeRandomDataset(400, 130);
  const auto ranks = RandomRanks(*dataset);
  for (const Split split : {Split::kValidation, Split::kTest}) {
    std::map<std::string, std::vector<int64_t>> expected;
    size_t evaluated = 0;
    for (int64_t user = 0; user < dataset->users(); ++user) {
      const auto sequence = dataset->sequence(user);
      if (sequence.size() < 3) continue;
      const size_t length = sequence.size() - (split == Split::kTest ? 1 : 2);
      expected[LengthLabel(length)].push_back(ranks[1][evaluated++]);
    }
    const auto rows = SliceByHistoryLength(*dataset, split, ranks);
    EXPECT_EQ(Labels(rows).front(), "1-2");
    EXPECT_EQ(rows.size(), expected.size());
    for (const auto& [label, of_bucket] : expected) {
      EXPECT_EQ(Row(rows, label).metrics[1].ndcg, MetricsOfRanks(of_bucket).ndcg) << label;
    }
    ExpectAddsUp(rows, ranks);
  }
}

TEST(Diagnosis, TargetsAreCountedInTheTrainingPartAlone) {
  // Test items 1..6, all the validation item 7: as a target seen 0, 1, 1, 2, 0 and 3 times before
  // the last two events of everybody.
  const std::vector<std::vector<int32_t>> sequences = {
      {6, 7, 1}, {6, 7, 2}, {6, 7, 3}, {4, 7, 4}, {4, 7, 5}, {2, 3, 7, 6}, {8, 8}};
  auto dataset = MakeRandomDataset(0, 1);
  for (const auto& sequence : sequences) {
    dataset->user_ids.push_back(absl::StrCat("u", dataset->users()));
    dataset->interactions.insert(dataset->interactions.end(), sequence.begin(), sequence.end());
    dataset->offsets.push_back(static_cast<int64_t>(dataset->interactions.size()));
  }
  const std::vector<std::vector<int64_t>> ranks = {{11, 1, 11, 1, 1, 11}};
  const auto rows = SliceByPopularity(*dataset, Split::kTest, ranks);
  EXPECT_THAT(Labels(rows), ElementsAre("0 (never seen)", "1", "2", "3"));
  EXPECT_EQ(rows[0].users, 2);
  EXPECT_EQ(rows[0].metrics[0].recall[1], 0.5);
  EXPECT_EQ(rows[1].users, 2);
  EXPECT_EQ(rows[1].metrics[0].recall[1], 0.5);
  EXPECT_EQ(rows[2].metrics[0].recall[1], 1.0);
  EXPECT_EQ(rows[3].metrics[0].recall[1], 0.0);
  ExpectAddsUp(rows, ranks);
  EXPECT_THAT(Labels(SliceByPopularity(*dataset, Split::kValidation, ranks)),
              ElementsAre("0 (never seen)"));
}

TEST(Diagnosis, PopularityBucketsHoldAboutAsManyUsersEach) {
  const auto dataset = MakeRandomDataset(2000, 12);
  const auto ranks = RandomRanks(*dataset);
  const auto rows = SliceByPopularity(*dataset, Split::kTest, ranks);
  std::vector<int64_t> events(kItems + 1);
  int64_t never = 0, largest = 0;
  for (int64_t user = 0; user < dataset->users(); ++user) {
    for (const int32_t item : TrainingItems(dataset->sequence(user))) ++events[item];
  }
  std::map<int64_t, int64_t> users_of_count;
  for (int64_t user = 0; user < dataset->users(); ++user) {
    if (!IsEvaluated(dataset->sequence(user))) continue;
    const int64_t count = events[static_cast<size_t>(dataset->sequence(user).back())];
    never += count == 0 ? 1 : 0;
    largest = std::max(largest, ++users_of_count[count]);
  }
  ASSERT_EQ(rows.size(), 6u);
  EXPECT_EQ(rows[0].users, never);
  const int64_t fifth = (static_cast<int64_t>(ranks[0].size()) - never) / 5;
  for (size_t row = 1; row < rows.size(); ++row) EXPECT_NEAR(rows[row].users, fifth, largest);
  ExpectAddsUp(rows, ranks);
}

// Scores the item after the last one highest, whatever came before.
class NextItemScorer : public Scorer {
 public:
  explicit NextItemScorer(int items) : items_(items) {}
  std::string name() const override { return "next"; }
  std::vector<int> dims() const override { return {4}; }
  absl::Status Score(std::span<const History> histories, Visitor visit) const override {
    std::vector<float> scores(histories.size() * static_cast<size_t>(items_ + 1));
    for (size_t h = 0; h < histories.size(); ++h)
      scores[h * static_cast<size_t>(items_ + 1) +
             static_cast<size_t>(1 + histories[h].back() % items_)] = 1;
    return visit(0, scores);
  }

 private:
  int items_;
};

// Scores items by how often the history holds the one before them: knows no order.
class BagScorer : public NextItemScorer {
 public:
  explicit BagScorer(int items) : NextItemScorer(items), items_(items) {}
  absl::Status Score(std::span<const History> histories, Visitor visit) const override {
    std::vector<float> scores(histories.size() * static_cast<size_t>(items_ + 1));
    for (size_t h = 0; h < histories.size(); ++h) {
      for (const int32_t item : histories[h])
        scores[h * static_cast<size_t>(items_ + 1) + static_cast<size_t>(1 + item % items_)] += 1;
    }
    return visit(0, scores);
  }

 private:
  int items_;
};

std::vector<int64_t> Ranks(const Scorer& scorer, const Dataset& dataset, int64_t chunk = 64,
                           int threads = 0) {
  const auto evaluation = Evaluate(
      scorer, dataset,
      {.split = Split::kTest, .threads = threads, .users_per_chunk = chunk, .progress = nullptr});
  EXPECT_TRUE(evaluation.ok()) << evaluation.status();
  return evaluation.ok() ? evaluation->ranks[0] : std::vector<int64_t>();
}

TEST(Diagnosis, OrderMattersToAScorerThatReadsItAndToNoOther) {
  const auto dataset = MakeCycleDataset();
  const NextItemScorer next(30);
  const BagScorer bag(30);
  const double right = MetricsOfRanks(Ranks(next, *dataset)).recall[0];
  EXPECT_EQ(right, 1.0);
  for (const HistoryChange change : {HistoryChange::kShuffled, HistoryChange::kReversed}) {
    const ChangedHistoryScorer changed_next(&next, change, 50, 1);
    const ChangedHistoryScorer changed_bag(&bag, change, 50, 1);
    EXPECT_LT(MetricsOfRanks(Ranks(changed_next, *dataset)).recall[0], 0.5) << changed_next.name();
    EXPECT_EQ(Ranks(changed_bag, *dataset), Ranks(bag, *dataset)) << changed_bag.name();
  }
  const ChangedHistoryScorer last(&next, HistoryChange::kLastOnly, 50, 1);
  EXPECT_EQ(Ranks(last, *dataset), Ranks(next, *dataset));
  const ChangedHistoryScorer last_of_bag(&bag, HistoryChange::kLastOnly, 50, 1);
  EXPECT_EQ(Ranks(last_of_bag, *dataset), Ranks(next, *dataset));
}

// Keeps the histories that it is asked to score.
class RecordingScorer : public NextItemScorer {
 public:
  using NextItemScorer::NextItemScorer;
  absl::Status Score(std::span<const History> histories, Visitor) const override {
    for (const History history : histories) seen.emplace_back(history.begin(), history.end());
    return absl::OkStatus();
  }
  mutable std::vector<std::vector<int32_t>> seen;
};

TEST(Diagnosis, OnlyTheItemsThatTheModelReadsAreReordered) {
  const std::vector<int32_t> history = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  const std::vector<int32_t> empty;
  const std::vector<History> histories = {history, empty};
  const RecordingScorer scorer(9);
  const auto changed = [&](HistoryChange change, uint64_t seed) {
    scorer.seen.clear();
    const ChangedHistoryScorer changes(&scorer, change, 6, seed);
    EXPECT_TRUE(
        changes.Score(histories, [](int, std::span<const float>) { return absl::OkStatus(); })
            .ok());
    EXPECT_THAT(scorer.seen.back(), ElementsAre());
    return scorer.seen.front();
  };
  EXPECT_THAT(changed(HistoryChange::kReversed, 1), ElementsAre(9, 8, 7, 6, 5, 4));
  EXPECT_THAT(changed(HistoryChange::kLastOnly, 1), ElementsAre(9));
  const std::vector<int32_t> shuffled = changed(HistoryChange::kShuffled, 1);
  EXPECT_THAT(shuffled, testing::UnorderedElementsAre(4, 5, 6, 7, 8, 9));
  EXPECT_NE(shuffled, (std::vector<int32_t>{4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(changed(HistoryChange::kShuffled, 1), shuffled);
  EXPECT_NE(changed(HistoryChange::kShuffled, 2), shuffled);
}

TEST(Diagnosis, ShufflingDependsOnTheSeedAndNotOnThreads) {
  const auto dataset = MakeCycleDataset();
  const NextItemScorer next(30);
  const ChangedHistoryScorer one(&next, HistoryChange::kShuffled, 50, 1);
  const ChangedHistoryScorer two(&next, HistoryChange::kShuffled, 50, 2);
  EXPECT_EQ(Ranks(one, *dataset, 64, 1), Ranks(one, *dataset, 7, 3));
  EXPECT_NE(Ranks(one, *dataset), Ranks(two, *dataset));
}

// A model of two modalities, "text" (5 columns) and "image" (7), whose stored embeddings are the
// projected features, plus an item residual if asked for.
class TwoModalities {
 public:
  explicit TwoModalities(const std::string& scaling, float residual = 0)
      : model({}), view(model.view()), info(model.info()), dataset(MakeRandomDataset(150, 14)) {
    dataset->modalities = {{"text", RandomFeatures(5, 1)}, {"image", RandomFeatures(7, 2)}};
    info.modalities = {{"text", 5, scaling}, {"image", 7, scaling}};
    features = *ConcatenateFeatures(*dataset, scaling);
    Random random(9);
    for (size_t level = 0; level < view.items.size(); ++level) {
      items.push_back(Project(level, features));
      for (float& value : items.back()) value += residual * static_cast<float>(random.Normal());
      view.items[level] = items.back();
    }
  }

  // W f + b of every row of [items + 1, 12], by the definition.
  std::vector<float> Project(size_t level, const Matrix& rows) const {
    const LinearLevel& projector = view.projector[level];
    const size_t width = projector.bias.size();
    std::vector<float> out;
    for (int64_t row = 0; row < rows.rows; ++row) {
      for (size_t c = 0; c < width; ++c) {
        double sum = projector.bias[c];
        for (size_t f = 0; f < 12; ++f)
          sum += static_cast<double>(projector.weight[c * 12 + f]) * rows.row(row)[f];
        out.push_back(static_cast<float>(sum));
      }
    }
    return out;
  }

  // The features with the columns [begin, end) of every item at their mean over the items.
  Matrix Centred(size_t begin, size_t end) const {
    Matrix result = features;
    for (size_t column = begin; column < end; ++column) {
      double sum = 0;
      for (int64_t item = 1; item <= kItems; ++item) sum += features.row(item)[column];
      for (int64_t item = 1; item <= kItems; ++item)
        result.row(item)[column] = static_cast<float>(sum / kItems);
    }
    return result;
  }

  absl::StatusOr<DiagnosisReport> Diagnose(DiagnosisOptions options = {}) const {
    auto diagnosis = Diagnosis::Create(&view, &info, dataset.get(), options);
    if (!diagnosis.ok()) return diagnosis.status();
    const auto evaluate = [&](const Scorer& scorer) { return EvaluateAs(scorer, options.split); };
    const auto encoder = *Encoder::Create(view, nullptr);
    return diagnosis->Run(*evaluate(ModelScorer(encoder.get())), evaluate);
  }

  absl::StatusOr<Evaluation> EvaluateAs(const Scorer& scorer, Split split) const {
    EvaluationOptions options;
    options.split = split;
    return Evaluate(scorer, *dataset, options);
  }

  const RandomModel model;
  ModelView view;
  ModelInfo info;
  std::shared_ptr<Dataset> dataset;
  Matrix features;  // [items + 1, 12]
  std::vector<std::vector<float>> items;
};

void ExpectNear(const std::vector<float>& actual, const std::vector<float>& expected,
                size_t padding) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = padding; i < actual.size(); ++i) ASSERT_NEAR(actual[i], expected[i], 2e-5) << i;
}

TEST(Diagnosis, AModalityIsTakenOutAsByRecomputationWithItsMean) {
  for (const char* scaling : {"none", "sqrt_width"}) {
    const TwoModalities model(scaling);
    for (const auto& [modality, begin, end] : {std::tuple(0, 0, 5), std::tuple(1, 5, 12)}) {
      const auto without =
          ItemsWithoutModality(model.view, model.info, *model.dataset, modality, 2);
      ASSERT_TRUE(without.ok()) << without.status();
      ASSERT_EQ(without->size(), 2u);
      for (size_t level = 0; level < 2; ++level) {
        const size_t width = model.view.projector[level].bias.size();
        ExpectNear((*without)[level], model.Project(level, model.Centred(begin, end)), width);
        EXPECT_TRUE(std::equal(model.items[level].begin(), model.items[level].begin() + width,
                               (*without)[level].begin()));  // padding
      }
    }
  }
}

TEST(Diagnosis, ZeroOfCentredFeaturesIsZero) {
  TwoModalities model("none");
  for (Modality& modality : model.dataset->modalities) {
    for (int64_t c = 0; c < modality.features.columns; ++c) {
      double sum = 0;
      for (int64_t i = 0; i < kItems; ++i) sum += modality.features.row(i)[c];
      for (int64_t i = 0; i < kItems; ++i)
        modality.features.row(i)[c] -= static_cast<float>(sum / kItems);
    }
  }
  Matrix zeroed = *ConcatenateFeatures(*model.dataset, "none");
  for (size_t level = 0; level < model.items.size(); ++level) {
    model.items[level] = model.Project(level, zeroed);
    model.view.items[level] = model.items[level];
  }
  for (int64_t item = 1; item <= kItems; ++item) std::fill_n(zeroed.row(item).begin() + 5, 7, 0.0f);
  const auto without = ItemsWithoutModality(model.view, model.info, *model.dataset, 1, 3);
  ASSERT_TRUE(without.ok());
  for (size_t level = 0; level < 3; ++level)
    ExpectNear((*without)[level], model.Project(level, zeroed), 0);
}

TEST(Diagnosis, AnItemResidualStays) {
  TwoModalities model("none", /*residual=*/0.5f);
  model.info.recipe_json = R"({"item_residual": true})";
  const auto without = ItemsWithoutModality(model.view, model.info, *model.dataset, 1, 1);
  ASSERT_TRUE(without.ok());
  const size_t width = model.view.projector[0].bias.size();
  std::vector<float> expected = model.Project(0, model.Centred(5, 12));
  const std::vector<float> content = model.Project(0, model.features);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += model.items[0][i] - content[i];
  ExpectNear((*without)[0], expected, width);
  const auto report = model.Diagnose();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->note, "");
  EXPECT_THAT(Labels(report->variations),
              ElementsAre("history shuffled", "history reversed", "last item only", "without text",
                          "without image"));
  // Not declared, it means other features.
  model.info.recipe_json = "{}";
  const auto other = model.Diagnose();
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_THAT(other->note, HasSubstr("trained on others"));
  EXPECT_EQ(other->variations.size(), 3u);
}

TEST(Diagnosis, EveryFigureIsThatOfAnEvaluationOfItsOwn) {
  const TwoModalities model("sqrt_width");
  const auto report = model.Diagnose({.split = Split::kValidation, .dims = {8, 32}, .seed = 5});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->dims, ElementsAre(8, 32));
  const auto expect = [&](const DiagnosisRow& row, const Scorer& scorer) {
    const auto evaluation = model.EvaluateAs(scorer, Split::kValidation);
    ASSERT_TRUE(evaluation.ok());
    EXPECT_EQ(row.users, evaluation->users);
    ASSERT_EQ(row.metrics.size(), 2u);
    EXPECT_EQ(row.metrics[0].mrr, evaluation->sizes[0].metrics.mrr) << row.label;
    EXPECT_EQ(row.metrics[1].mrr, evaluation->sizes[2].metrics.mrr) << row.label;
  };
  const auto encoder = *Encoder::Create(model.view, nullptr);
  const ModelScorer scorer(encoder.get());
  expect(report->whole, scorer);
  expect(Row(report->variations, "history shuffled"),
         ChangedHistoryScorer(&scorer, HistoryChange::kShuffled, 10, 5));
  expect(Row(report->variations, "last item only"),
         ChangedHistoryScorer(&scorer, HistoryChange::kLastOnly, 10, 5));
  const auto items = *ItemsWithoutModality(model.view, model.info, *model.dataset, 1, 3);
  ModelView view = model.view;
  for (size_t level = 0; level < 3; ++level) view.items[level] = items[level];
  const auto without = *Encoder::Create(view, nullptr);
  expect(Row(report->variations, "without image"), ModelScorer(without.get()));
  EXPECT_NE(Row(report->variations, "without image").metrics[1].mrr, report->whole.metrics[1].mrr);
}

TEST(Diagnosis, ChoosesNarrowestMiddleAndWidest) {
  const auto dims = [](std::vector<int> sizes) {
    const RandomModel model({.sizes = std::move(sizes)});
    const auto dataset = MakeRandomDataset(5, 5);
    return Diagnosis::Create(&model.view(), &model.info(), dataset.get(), {})->dims();
  };
  EXPECT_THAT(dims({8, 16, 32, 64, 128}), ElementsAre(8, 32, 128));
  EXPECT_THAT(dims({8, 16}), ElementsAre(8, 16));
  EXPECT_THAT(dims({8}), ElementsAre(8));
}

TEST(Diagnosis, OneModalityLeavesNothingToTakeOut) {
  const RandomModel model({});
  const auto dataset = MakeRandomDataset(100, 10);  // its features are not needed
  const auto diagnosis = Diagnosis::Create(&model.view(), &model.info(), dataset.get(), {});
  ASSERT_TRUE(diagnosis.ok()) << diagnosis.status();
  const auto evaluate = [&](const Scorer& scorer) { return Evaluate(scorer, *dataset, {}); };
  const auto encoder = *Encoder::Create(model.view(), nullptr);
  const auto report = diagnosis->Run(*evaluate(ModelScorer(encoder.get())), evaluate);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->variations.size(), 3u);
  EXPECT_THAT(report->note, HasSubstr("one modality, text: there is nothing to take out"));
}

TEST(Diagnosis, ErrorsAreClear) {
  TwoModalities model("none");
  EXPECT_THAT(model.Diagnose({.dims = {8, 9}}).status().message(),
              HasSubstr("9 is not one of this model's sizes 8,16,32"));
  EXPECT_THAT(model.Diagnose({.dims = {16, 8}}).status().message(), HasSubstr("8 comes after 16"));
  const std::vector<Modality> modalities = model.dataset->modalities;
  model.dataset->modalities = {modalities[0], {"image", RandomFeatures(6, 1)}};
  EXPECT_THAT(model.Diagnose().status().message(), HasSubstr("6 wide, but the model was trained"));
  model.dataset->modalities = {modalities[0]};
  EXPECT_EQ(model.Diagnose().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(model.Diagnose().status().message(), HasSubstr("'image', which the data lacks"));
  model.dataset->modalities = {modalities[1], modalities[0]};  // any order
  EXPECT_TRUE(model.Diagnose().ok());
  model.dataset->fingerprint = "1111111111111111";
  EXPECT_THAT(model.Diagnose().status().message(), HasSubstr("trained on other data"));
}

TEST(Diagnosis, StopsWhenAnEvaluationIsStopped) {
  const TwoModalities model("none");
  const auto diagnosis = *Diagnosis::Create(&model.view, &model.info, model.dataset.get(), {});
  const auto encoder = *Encoder::Create(model.view, nullptr);
  const auto whole = *model.EvaluateAs(ModelScorer(encoder.get()), Split::kTest);
  int calls = 0;
  const auto report = diagnosis.Run(whole, [&](const Scorer& scorer) -> absl::StatusOr<Evaluation> {
    if (++calls == 3) return absl::CancelledError("stopped");
    return model.EvaluateAs(scorer, Split::kTest);
  });
  EXPECT_EQ(report.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(calls, 3);
}

}  // namespace
}  // namespace nestrec
