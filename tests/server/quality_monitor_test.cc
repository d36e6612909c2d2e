#include "server/quality_monitor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <future>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "index/score.h"
#include "tests/testing/random_model.h"

namespace nestrec {
namespace {

constexpr int64_t kItems = 300;

// By the definition, place by place.
QualitySample ByDefinition(const std::vector<int32_t>& served, const std::vector<int32_t>& widest) {
  const auto gain = [&](int32_t item) -> double {
    const auto found = std::find(widest.begin(), widest.end(), item);
    return found == widest.end() ? 0 : static_cast<double>(widest.end() - found);
  };
  const auto dcg = [&](const std::vector<int32_t>& list) {
    double sum = 0;
    for (size_t p = 1; p <= list.size(); ++p) {
      sum += gain(list[p - 1]) / (std::log(1.0 + static_cast<double>(p)) / std::log(2.0));
    }
    return sum;
  };
  std::set<int32_t> shared;
  for (const int32_t item : served) {
    if (gain(item) > 0) shared.insert(item);
  }
  return {.overlap = static_cast<double>(shared.size()) / static_cast<double>(widest.size()),
          .ndcg = dcg(served) / dcg(widest)};
}

TEST(CompareWithWidest, IsWhatTheDefinitionSays) {
  Random random(5);
  for (int round = 0; round < 200; ++round) {
    std::vector<int32_t> items(30);
    std::iota(items.begin(), items.end(), 1);
    random.Shuffle(std::span(items));
    const std::vector<int32_t> served(items.begin(), items.begin() + random.Index(11));
    random.Shuffle(std::span(items));
    const std::vector<int32_t> widest(items.begin(), items.begin() + 1 + random.Index(10));
    const QualitySample sample = CompareWithWidest(served, widest);
    const QualitySample expected = ByDefinition(served, widest);
    EXPECT_DOUBLE_EQ(sample.overlap, expected.overlap);
    EXPECT_NEAR(sample.ndcg, expected.ndcg, 1e-12);
  }
}

TEST(CompareWithWidest, KnowsTheEnds) {
  EXPECT_EQ(CompareWithWidest(std::vector<int32_t>{4, 5, 6}, std::vector<int32_t>{4, 5, 6}).ndcg,
            1);
  const QualitySample other =
      CompareWithWidest(std::vector<int32_t>{1, 2}, std::vector<int32_t>{3, 4});
  EXPECT_EQ(other.overlap, 0);
  EXPECT_EQ(other.ndcg, 0);
  // The same items in the opposite order: all of them, but not 1.
  const QualitySample reversed =
      CompareWithWidest(std::vector<int32_t>{2, 1}, std::vector<int32_t>{1, 2});
  EXPECT_EQ(reversed.overlap, 1);
  EXPECT_NEAR(reversed.ndcg, (1 + 2 / std::log2(3)) / (2 + 1 / std::log2(3)), 1e-12);
  EXPECT_EQ(CompareWithWidest({}, std::vector<int32_t>{1}).overlap, 0);
}

class TestCall : public RecommendCall {
 public:
  bool Cancelled() const override { return false; }
  void Answer(const Answered& answered) override { outcome.set_value(answered); }
  void Fail(const absl::Status& why) override { outcome.set_value(why); }
  std::promise<absl::StatusOr<Answered>> outcome;
};

class QualityMonitorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string path = ::testing::TempDir() + "/quality_monitor_test.safetensors";
    ASSERT_TRUE(RandomModel({.sizes = {8, 24, 64}, .blocks = 2, .items = kItems}).Write(path).ok());
    auto loaded = Snapshot::Load({.path = path,
                                  .tiers = {.tiers = {{.name = "gold", .dim = 64, .index = {}},
                                                      {.name = "small", .dim = 8, .index = {}}},
                                            .default_tier = "gold"}},
                                 Log([](absl::string_view) {}));
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    snapshot_ = *std::move(loaded);
  }

  // Every item's canonical score, sorted.
  std::vector<int32_t> BruteForce(const std::vector<int32_t>& history, int dim, int64_t k,
                                  const std::set<int32_t>& excluded) const {
    const ModelView& view = snapshot_->checkpoint().view();
    const int levels = *view.sizes.LevelsOf(dim);
    std::vector<float> z(static_cast<size_t>(dim));
    const History span(history);
    EXPECT_TRUE(snapshot_->encoder().Encode(std::span(&span, 1), levels, z).ok());
    const LevelVectors vectors{.sizes = view.sizes, .rows = view.item_rows, .levels = view.items};
    std::vector<ScoredItem> all;
    for (int32_t item = 1; item <= kItems; ++item) {
      if (!excluded.contains(item)) {
        all.push_back({item, CanonicalScore(z, vectors, levels, item)});
      }
    }
    std::sort(all.begin(), all.end(), RanksBefore);
    std::vector<int32_t> items;
    for (int64_t i = 0; i < k; ++i) items.push_back(all[static_cast<size_t>(i)].item);
    return items;
  }

  // Waits for the answer.
  void Ask(RecommendEngine& engine, RecommendQuery query) {
    auto call = std::make_unique<TestCall>();
    call->query = std::move(query);
    call->snapshot = snapshot_;
    call->arrived = SteadyClock()();
    auto outcome = call->outcome.get_future();
    ASSERT_TRUE(engine.Submit(std::move(call)).ok());
    ASSERT_TRUE(outcome.get().ok());
  }

  double Value(const std::string& name) const {
    const std::string text = metrics_.Text();
    const size_t at = text.find("\n" + name + " ");
    if (at == std::string::npos) return -1;
    const size_t begin = at + name.size() + 2;
    double value = -1;
    EXPECT_TRUE(absl::SimpleAtod(
        absl::string_view(text).substr(begin, text.find('\n', begin) - begin), &value));
    return value;
  }
  double Samples(const std::string& result) const {
    return Value(absl::StrCat("nestrec_quality_samples_total{result=\"", result, "\"}"));
  }

  std::shared_ptr<const Snapshot> snapshot_;
  Metrics metrics_;
};

TEST_F(QualityMonitorTest, MeasuresWhatBruteForceMeasures) {
  QualityMonitor monitor(metrics_, {.share = 1, .max_queue = 1000});
  double overlap = 0, ndcg = 0;
  {
    RecommendEngine engine(*snapshot_, {.observers = {&monitor}});
    for (int i = 0; i < 40; ++i) {
      RecommendQuery query;
      query.history = {1 + i, 2 + 3 * i, 300 - i};
      query.excluded = {7, 8, 9 + i};
      query.k = 5;
      query.width.tier = "small";
      const std::set<int32_t> excluded(query.excluded.begin(), query.excluded.end());
      const QualitySample expected = ByDefinition(BruteForce(query.history, 8, 5, excluded),
                                                  BruteForce(query.history, 64, 5, excluded));
      overlap += expected.overlap;
      ndcg += expected.ndcg;
      Ask(engine, query);
      query.width.tier = "gold";
      Ask(engine, query);
    }
  }
  monitor.Flush();
  EXPECT_EQ(Samples("measured"), 80);
  EXPECT_EQ(Samples("failed"), 0);
  EXPECT_EQ(Value("nestrec_quality_overlap_count{dim=\"8\",tier=\"small\"}"), 40);
  EXPECT_NEAR(Value("nestrec_quality_overlap_sum{dim=\"8\",tier=\"small\"}"), overlap, 1e-4);
  EXPECT_NEAR(Value("nestrec_quality_ndcg_sum{dim=\"8\",tier=\"small\"}"), ndcg, 1e-4);
  // Neither perfect nor useless, or the sums above would say little.
  EXPECT_GT(overlap, 4);
  EXPECT_LT(overlap, 36);
  EXPECT_EQ(Value("nestrec_quality_ndcg_sum{dim=\"64\",tier=\"gold\"}"), 40);
}

TEST_F(QualityMonitorTest, AShadowIsAskedForWhatTheRequestWasByItsOwnNumbers) {
  // The same items in another order, with weights of their own.
  const std::string path = ::testing::TempDir() + "/quality_monitor_test.shadow.safetensors";
  const RandomModel model({.sizes = {8, 24}, .items = kItems, .seed = 7});
  std::vector<std::string> ids, records;
  for (int64_t item = kItems; item >= 1; --item) {
    ids.push_back(RandomModelItemId(item));
    records.emplace_back("{}");
  }
  ASSERT_TRUE(
      WriteCheckpoint(path, model.view(), model.info(), *Catalogue::Create(ids, records), nullptr)
          .ok());
  const auto shadow = Snapshot::Load({.path = path}, Log([](absl::string_view) {}));
  ASSERT_TRUE(shadow.ok()) << shadow.status();
  const auto number = [](int32_t item) { return static_cast<int32_t>(kItems + 1 - item); };

  RecommendQuery query;
  query.history = {5, 9, 40};
  query.excluded = {3};
  query.k = 6;
  RecommendQuery own = query;
  for (int32_t& item : own.history) item = number(item);
  for (int32_t& item : own.excluded) item = number(item);
  const auto expected = WidestItems(**shadow, *(*shadow)->items(), *(*shadow)->items(), own);
  ASSERT_TRUE(expected.ok()) << expected.status();
  const auto items = ShadowItems(**shadow, *snapshot_, *snapshot_->items(), query, 24);
  ASSERT_TRUE(items.ok()) << items.status();
  ASSERT_EQ(items->size(), 6u);
  for (size_t i = 0; i < items->size(); ++i) EXPECT_EQ((*items)[i], number((*expected)[i]));
  EXPECT_EQ(ShadowItems(**shadow, *snapshot_, *snapshot_->items(), query, 64).status().code(),
            absl::StatusCode::kFailedPrecondition);

  QualityMonitor monitor(metrics_, {.share = 0, .shadow_for = [&](const Snapshot& answered) {
                                      EXPECT_EQ(&answered, snapshot_.get());
                                      return *shadow;
                                    }});
  {
    RecommendEngine engine(*snapshot_, {.observers = {&monitor}});
    query.width.dim = 24;
    Ask(engine, query);
  }
  monitor.Flush();
  const QualitySample sample = ByDefinition(BruteForce(query.history, 24, 6, {3}), *items);
  EXPECT_EQ(Value("nestrec_shadow_samples_total{result=\"measured\"}"), 1);
  EXPECT_NEAR(Value("nestrec_shadow_ndcg_sum{dim=\"24\",tier=\"\"}"), sample.ndcg, 1e-4);
  EXPECT_EQ(Samples("measured"), 0);
}

TEST_F(QualityMonitorTest, ASessionCountsAsTheHistoryThatItIs) {
  SessionHistory session{.user_id = "u", .session = 1, .end = 4, .items = {5, 0, 6, 7}};
  RecommendQuery query;
  query.k = 8;
  query.history = {11};
  query.session = session;
  query.excluded = {5, 6, 7, 11};
  const auto items = WidestItems(*snapshot_, *snapshot_->items(), *snapshot_->items(), query);
  ASSERT_TRUE(items.ok()) << items.status();
  EXPECT_EQ(*items, BruteForce({5, 6, 7, 11}, 64, 8, {5, 6, 7, 11}));
}

TEST_F(QualityMonitorTest, LeavesOutWhatTheServerHasNoTimeFor) {
  std::atomic<bool> overloaded = true;
  QualityMonitor monitor(
      metrics_, {.share = 1, .max_queue = 1000, .overloaded = [&] { return overloaded.load(); }});
  RecommendEngine engine(*snapshot_, {.observers = {&monitor}});
  RecommendQuery query;
  query.k = 3;
  query.width.dim = 8;
  for (int i = 0; i < 5; ++i) Ask(engine, query);
  monitor.Flush();
  EXPECT_EQ(Samples("overloaded"), 5);
  EXPECT_EQ(Samples("measured"), 0);
  overloaded = false;
  Ask(engine, query);
  monitor.Flush();
  EXPECT_EQ(Samples("measured"), 1);
  EXPECT_EQ(Value("nestrec_quality_overlap_count{dim=\"8\",tier=\"\"}"), 1);
}

TEST_F(QualityMonitorTest, AFullQueueCostsSamplesAndNoTime) {
  // The monitor's own thread, the only one that is no worker's, stands still until released.
  std::promise<void> release;
  const std::shared_future<void> released = release.get_future().share();
  std::atomic<bool> first = true;
  QualityMonitor monitor(metrics_, {.share = 1, .max_queue = 2, .overloaded = [&] {
                                      // First on the worker.
                                      thread_local bool is_worker = false;
                                      if (first.exchange(false)) is_worker = true;
                                      if (!is_worker) released.wait();
                                      return false;
                                    }});
  {
    RecommendEngine engine(*snapshot_, {.workers = 1, .observers = {&monitor}});
    RecommendQuery query;
    query.k = 3;
    query.width.dim = 8;
    for (int i = 0; i < 10; ++i) Ask(engine, query);
  }
  release.set_value();
  monitor.Flush();
  // Two in the queue, and the one that the thread had taken if it was quick.
  EXPECT_GE(Samples("behind"), 7);
  EXPECT_LE(Samples("behind"), 8);
  EXPECT_EQ(Samples("behind") + Samples("measured"), 10);
}

TEST_F(QualityMonitorTest, SamplesAShareAndNoRequestsWithAMinScore) {
  QualityMonitor monitor(metrics_, {.share = 0.25, .max_queue = 10'000});
  RecommendEngine engine(*snapshot_, {.observers = {&monitor}});
  RecommendQuery query;
  query.k = 3;
  query.width.dim = 8;
  for (int i = 0; i < 400; ++i) Ask(engine, query);
  monitor.Flush();
  EXPECT_NEAR(Samples("measured"), 100, 40);
  const double before = Samples("measured");
  query.min_score = -100;
  for (int i = 0; i < 100; ++i) Ask(engine, query);
  monitor.Flush();
  EXPECT_EQ(Samples("measured"), before);
}

}  // namespace
}  // namespace nestrec
