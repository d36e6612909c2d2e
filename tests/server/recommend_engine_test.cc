#include "server/recommend_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/session/embedded_log.h"
#include "server/status_details.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

using Answered = RecommendCall::Answered;

class TestCall : public RecommendCall {
 public:
  bool Cancelled() const override {
    if (when_taken != nullptr) std::exchange(when_taken, nullptr)();
    return cancelled;
  }
  void Answer(const Answered& answered) override { outcome.set_value(answered); }
  void Fail(const absl::Status& why) override { outcome.set_value(why); }

  bool cancelled = false;
  mutable std::function<void()> when_taken;  // once, on the worker's thread
  std::promise<absl::StatusOr<Answered>> outcome;
};

// Stands still, or goes on by `tick` whenever it is asked.
class TestClock {
 public:
  Clock AsClock() {
    return [this] {
      if (asks_left_.fetch_sub(1) == 1) now_us_ += jump_us_;
      return Instant(std::chrono::hours(1)) +
             std::chrono::microseconds(now_us_.fetch_add(tick_us_) + tick_us_);
    };
  }
  Instant now() { return AsClock()(); }
  void set_tick(absl::Duration tick) { tick_us_ = absl::ToInt64Microseconds(tick); }
  // Once, from the `ask`th time that it is asked on.
  void JumpAt(int ask, absl::Duration by) {
    jump_us_ = absl::ToInt64Microseconds(by);
    asks_left_ = ask;
  }

 private:
  std::atomic<int64_t> now_us_ = 0;
  std::atomic<int64_t> tick_us_ = 0;
  std::atomic<int64_t> jump_us_ = 0;
  std::atomic<int64_t> asks_left_ = 0;
};

class RecommendEngineTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string path = testing::TempDir() + "/recommend_engine_test.safetensors";
    ASSERT_TRUE(RandomModel({.sizes = {8, 24, 64}, .blocks = 2, .items = 300}).Write(path).ok());
    LoadModel();
  }
  // Again: with costs that nothing is known of.
  void LoadModel() {
    const std::string path = testing::TempDir() + "/recommend_engine_test.safetensors";
    auto loaded = Snapshot::Load(
        {.path = path,
         .tiers = {.tiers = {{.name = "any", .dim = 64, .index = {}, .min_dim = 8, .max_k = 20},
                             {.name = "hasty",
                              .dim = 64,
                              .index = {},
                              .min_dim = 24,
                              .latency_budget = absl::Milliseconds(1)}},
                   .default_tier = "any"},
         .sessions = true},
        Log([](absl::string_view) {}));
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    snapshot_ = *std::move(loaded);
  }
  const Snapshot& snapshot() const { return *snapshot_; }

  std::unique_ptr<TestCall> Call(const WidthRequest& width,
                                 std::vector<int32_t> history = {3, 1, 4}) {
    auto call = std::make_unique<TestCall>();
    call->query.history = std::move(history);
    call->query.k = 10;
    call->query.width = width;
    call->snapshot = snapshot_;
    call->arrived = clock_.now();
    return call;
  }
  absl::StatusOr<Answered> Run(RecommendEngine& engine, std::unique_ptr<TestCall> call) {
    auto outcome = call->outcome.get_future();
    const absl::Status status = engine.Submit(std::move(call));
    return status.ok() ? outcome.get() : status;
  }
  // Its costs: about 3 ms for a request of any width.
  std::unique_ptr<RecommendEngine> WarmEngine() {
    auto engine = std::make_unique<RecommendEngine>(
        snapshot(),
        RecommendEngine::Options{.clock = clock_.AsClock(), .warm_up_clock = clock_.AsClock()});
    clock_.set_tick(absl::Milliseconds(1));
    EXPECT_TRUE(engine->WarmUp(snapshot()).ok());
    clock_.set_tick(absl::ZeroDuration());
    return engine;
  }
  std::vector<ScoredItem> Expected(const std::vector<int32_t>& history, int dim, int64_t k) const {
    std::vector<float> z(static_cast<size_t>(dim));
    const History span(history);
    const int levels = *snapshot().sizes().LevelsOf(dim);
    EXPECT_TRUE(snapshot().encoder().Encode(std::span(&span, 1), levels, z).ok());
    return snapshot().index(dim, {}).Search(z, {.k = k})->items;
  }

  std::shared_ptr<const Snapshot> snapshot_;
  TestClock clock_;
};

TEST_F(RecommendEngineTest, AnswersEveryWidthAsIfItWereAlone) {
  std::vector<std::future<absl::StatusOr<Answered>>> outcomes;
  std::vector<std::vector<int32_t>> histories;
  RecommendEngine engine(snapshot(), {.workers = 2, .max_batch = 7});
  for (int i = 0; i < 60; ++i) {
    histories.push_back({1 + i, 2 + 3 * i, 300 - i});
    if (i % 5 == 0) histories.back().clear();
    auto call = Call({.dim = snapshot().sizes().end(i % 3)}, histories.back());
    outcomes.push_back(call->outcome.get_future());
    ASSERT_TRUE(engine.Submit(std::move(call)).ok());
  }
  for (int i = 0; i < 60; ++i) {
    const absl::StatusOr<Answered> answered = outcomes[static_cast<size_t>(i)].get();
    ASSERT_TRUE(answered.ok()) << answered.status();
    const int dim = snapshot().sizes().end(i % 3);
    EXPECT_EQ(answered->width.dim, dim);
    EXPECT_EQ(answered->width.why, WidthReason::kExplicit);
    EXPECT_EQ(answered->recommendation.result.items,
              Expected(histories[static_cast<size_t>(i)], dim, 10));
  }
}

// The batch waits until it is full.
TEST_F(RecommendEngineTest, RequestsThatAreSearchedTogetherKeepTheirOwnConditions) {
  class LargestBatch : public EngineObserver {
   public:
    void Ran(const Batch& batch) override { requests = std::max(requests.load(), batch.requests); }
    std::atomic<size_t> requests = 0;
  };
  LargestBatch largest;
  RecommendEngine engine(snapshot(), {.workers = 1,
                                      .max_batch = 60,
                                      .batch_delay = absl::Minutes(1),
                                      .observers = {&largest},
                                      .clock = clock_.AsClock()});
  std::vector<std::future<absl::StatusOr<Answered>>> outcomes;
  std::vector<ScoredItem> best = Expected({3, 1, 4}, 64, 300);
  for (int i = 0; i < 60; ++i) {
    auto call = Call({.dim = 64});
    RecommendQuery& query = call->query;
    query.k = 1 + i % 7;
    if (i % 3 == 1) query.excluded = {best[0].item, best[2].item};
    if (i % 3 == 2) query.only = std::vector<int32_t>{best[5].item, best[9].item};
    if (i % 5 == 0) query.min_score = best[3].score;
    outcomes.push_back(call->outcome.get_future());
    ASSERT_TRUE(engine.Submit(std::move(call)).ok());
  }
  for (int i = 0; i < 60; ++i) {
    std::vector<ScoredItem> expected;
    for (size_t rank = 0; rank < best.size(); ++rank) {
      const bool excluded = i % 3 == 1 && (rank == 0 || rank == 2);
      const bool allowed = i % 3 != 2 || rank == 5 || rank == 9;
      const bool reaches = i % 5 != 0 || best[rank].score >= best[3].score;
      if (!excluded && allowed && reaches && static_cast<int>(expected.size()) < 1 + i % 7) {
        expected.push_back(best[rank]);
      }
    }
    const absl::StatusOr<Answered> answered = outcomes[static_cast<size_t>(i)].get();
    ASSERT_TRUE(answered.ok()) << answered.status();
    EXPECT_EQ(answered->recommendation.result.items, expected) << i;
  }
  engine.Shutdown();
  EXPECT_EQ(largest.requests, 60u);
}

TEST_F(RecommendEngineTest, WhatExplainCostsCountsAgainstTheBudget) {
  const auto engine = WarmEngine();
  // About 3 ms at any width without it; 10 * 10 more items to encode with it.
  const std::vector<int32_t> history = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  for (const bool explain : {false, true}) {
    auto call = Call({.latency_budget = absl::Microseconds(3500)}, history);
    call->query.explain = explain;
    const absl::StatusOr<Answered> answered = Run(*engine, std::move(call));
    ASSERT_TRUE(answered.ok()) << answered.status();
    EXPECT_EQ(answered->width.dim, explain ? 8 : 64);
    EXPECT_EQ(answered->recommendation.explanation.has_value(), explain);
    if (explain) {
      EXPECT_EQ(answered->width.why, WidthReason::kBudget);
      EXPECT_EQ(answered->recommendation.explanation->window, history);
    }
  }
}

TEST_F(RecommendEngineTest, ServesTheWidestWhileThereIsTime) {
  const auto engine = WarmEngine();
  for (const absl::Duration budget : {absl::Milliseconds(100), absl::InfiniteDuration()}) {
    const auto answered = Run(*engine, Call({.latency_budget = budget}));
    ASSERT_TRUE(answered.ok()) << answered.status();
    EXPECT_EQ(answered->width.dim, 64);
    EXPECT_EQ(answered->width.tier, "any");
    EXPECT_EQ(answered->width.why, WidthReason::kDefault);
    EXPECT_EQ(answered->recommendation.result.items, Expected({3, 1, 4}, 64, 10));
  }
}

TEST_F(RecommendEngineTest, NarrowsToWhatTheBudgetOrTheDeadlineIsEnoughFor) {
  const auto engine = WarmEngine();
  const auto budget = Run(*engine, Call({.latency_budget = absl::Milliseconds(1)}));
  ASSERT_TRUE(budget.ok()) << budget.status();
  EXPECT_EQ(budget->width.dim, 8);
  EXPECT_EQ(budget->width.why, WidthReason::kBudget);
  EXPECT_EQ(budget->recommendation.result.items, Expected({3, 1, 4}, 8, 10));

  auto call = Call({.tier = "any"});
  call->deadline = clock_.now() + std::chrono::milliseconds(1);
  const auto deadline = Run(*engine, std::move(call));
  ASSERT_TRUE(deadline.ok()) << deadline.status();
  EXPECT_EQ(deadline->width.dim, 8);
  EXPECT_EQ(deadline->width.why, WidthReason::kDeadline);
}

// Requests whose encoding usually takes 1 ms a level and hardly ever more than 10 ms, with a budget
// of 25 ms: two levels are sure, the third may be.
class AnytimeTest : public RecommendEngineTest {
 protected:
  static constexpr absl::Duration kBudget = absl::Milliseconds(25);
  // What is left of it is not enough for one level more.
  static constexpr absl::Duration kJump = absl::Milliseconds(18);

  // Everything anew.
  void Start() {
    engine_.reset();
    LoadModel();
    CostModel& costs = snapshot().costs();
    for (int levels = 1; levels <= 3; ++levels) {
      for (const int64_t rows : {1, 3, 4}) {
        for (int i = 0; i < 100; ++i) {
          costs.Record(Stage::kEncode, levels, rows,
                       absl::Milliseconds((i % 10 < 8 ? 1 : 10) * levels));
        }
      }
      costs.Record(Stage::kSearch, levels, 1, absl::ZeroDuration());
      costs.Record(Stage::kOther, levels, 1, absl::ZeroDuration());
    }
    folder_ = std::make_unique<TempFolder>();
    auto log = EmbeddedSessionLog::Open({.folder = folder_->path(),
                                         .events_per_session = 20,
                                         .log = Log([](absl::string_view) {})});
    ASSERT_TRUE(log.ok()) << log.status();
    sessions_ = std::make_unique<SessionManager>(*std::move(log), 1 << 20);
    engine_ = std::make_unique<RecommendEngine>(
        snapshot(),
        RecommendEngine::Options{.sessions = sessions_.get(), .clock = clock_.AsClock()});
  }
  void Record(const std::vector<int32_t>& items) {
    std::vector<SessionEvent> events;
    for (const int32_t item : items) events.push_back({RandomModelItemId(item), absl::UnixEpoch()});
    ASSERT_TRUE(sessions_->Record("u", events, "").ok());
  }
  // With a history, or as the user "u".
  std::unique_ptr<TestCall> CallOf(const WidthRequest& width, bool session) {
    auto call = Call(width, session ? std::vector<int32_t>{} : std::vector<int32_t>{3, 1, 4});
    if (session) call->query.user_id = "u";
    call->query.include_seen = true;
    return call;
  }
  // After a user's state was computed for its first two items. The clock jumps at the `ask`th time
  // that the worker asks it.
  Answered Hasty(bool session, int ask) {
    clock_.JumpAt(0, absl::ZeroDuration());  // the last one may never have come
    Start();
    if (session) {
      Record({3, 1});
      EXPECT_TRUE(Run(*engine_, CallOf({.dim = 64}, session)).ok());
      Record({4});
    }
    auto call = CallOf({.latency_budget = kBudget}, session);
    call->when_taken = [&] { clock_.JumpAt(ask, kJump); };
    auto answered = Run(*engine_, std::move(call));
    EXPECT_TRUE(answered.ok()) << answered.status();
    return *std::move(answered);
  }
  std::vector<int32_t> Items(const std::vector<ScoredItem>& scored) const {
    std::vector<int32_t> items;
    for (const ScoredItem& item : scored) items.push_back(item.item);
    return items;
  }

  std::unique_ptr<TempFolder> folder_;
  std::unique_ptr<SessionManager> sessions_;
  std::unique_ptr<RecommendEngine> engine_;
};

// The clock jumps before the width is chosen, then between that and the question whether the third
// level fits, then after it.
TEST_F(AnytimeTest, AWiderLevelIsComputedWhileThereIsTime) {
  for (const bool session : {false, true}) {
    std::vector<int> dims;
    for (int ask = 1; ask <= 20; ++ask) {
      const Answered answered = Hasty(session, ask);
      const int dim = answered.width.dim;
      if (dims.empty() || dims.back() != dim) dims.push_back(dim);
      EXPECT_EQ(answered.width.why, dim == 64 ? WidthReason::kDefault : WidthReason::kBudget);
      EXPECT_EQ(snapshot().sizes().end(answered.width.levels - 1), dim);
      EXPECT_EQ(Items(answered.recommendation.result.items), Items(Expected({3, 1, 4}, dim, 10)));
    }
    EXPECT_THAT(dims, testing::ElementsAre(8, 24, 64)) << (session ? "session" : "history");
  }
}

TEST_F(AnytimeTest, ASessionsEventIsOneStepHoweverWideItGoes) {
  const Answered answered = Hasty(/*session=*/true, /*ask=*/0);
  EXPECT_EQ(answered.width.dim, 64);
  EXPECT_EQ(answered.width.most_why, WidthReason::kDefault);
  // Two items at first, then one.
  EXPECT_EQ(sessions_->stats().computed, 3);
  EXPECT_EQ(sessions_->stats().stepped, 1);
  // What was reached is the session's state.
  ASSERT_TRUE(Run(*engine_, CallOf({.dim = 64}, true)).ok());
  EXPECT_EQ(sessions_->stats().computed, 3);
}

TEST_F(AnytimeTest, AWiderSessionTakesNoTimeFromTheHistoriesOfItsBatch) {
  // Alone there is time for its third level; not with a history of 60 ms besides, that is promised.
  for (const bool with_history : {false, true}) {
    Start();
    Record({3, 1, 4});
    engine_ = std::make_unique<RecommendEngine>(
        snapshot(), RecommendEngine::Options{.max_batch = with_history ? 2 : 1,
                                             .batch_delay = absl::Minutes(1),
                                             .sessions = sessions_.get(),
                                             .clock = clock_.AsClock()});
    auto call = CallOf({.latency_budget = kBudget}, /*session=*/true);
    auto outcome = call->outcome.get_future();
    ASSERT_TRUE(engine_->Submit(std::move(call)).ok());
    if (with_history) {
      ASSERT_TRUE(Run(*engine_, CallOf({.dim = 64}, /*session=*/false)).ok());
    }
    const auto answered = outcome.get();
    ASSERT_TRUE(answered.ok()) << answered.status();
    EXPECT_EQ(answered->width.dim, with_history ? 24 : 64);
  }
}

TEST_F(RecommendEngineTest, ATiersBudgetHoldsForRequestsThatNameNone) {
  const auto engine = WarmEngine();
  const auto hasty = Run(*engine, Call({.tier = "hasty"}));
  ASSERT_TRUE(hasty.ok()) << hasty.status();
  EXPECT_EQ(hasty->width.dim, 24);
  EXPECT_EQ(hasty->width.why, WidthReason::kBudget);
  const auto patient =
      Run(*engine, Call({.tier = "hasty", .latency_budget = absl::Milliseconds(100)}));
  ASSERT_TRUE(patient.ok()) << patient.status();
  EXPECT_EQ(patient->width.dim, 64);
}

TEST_F(RecommendEngineTest, MinQualityIsKeptByTheNarrowest) {
  const auto engine = WarmEngine();
  // Recall@10 grows with the dim in this model: 8, 24 and 64 of 64.
  for (const auto& [quality, dim] :
       std::vector<std::pair<double, int>>{{0.1, 8}, {0.2, 24}, {0.375, 24}, {0.5, 64}}) {
    const auto answered = Run(*engine, Call({.min_quality = quality}));
    ASSERT_TRUE(answered.ok()) << answered.status();
    EXPECT_EQ(answered->width.dim, dim) << quality;
    EXPECT_EQ(answered->width.why, WidthReason::kQuality);
  }
}

TEST_F(RecommendEngineTest, DropsWhatIsTooLateOrCancelled) {
  const auto engine = WarmEngine();
  auto late = Call({.latency_budget = absl::Milliseconds(1)});
  late->arrived -= std::chrono::milliseconds(2);
  EXPECT_EQ(Run(*engine, std::move(late)).status().code(), absl::StatusCode::kDeadlineExceeded);
  auto cancelled = Call({});
  cancelled->cancelled = true;
  EXPECT_EQ(Run(*engine, std::move(cancelled)).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(RecommendEngineTest, RefusesWhatItsTierDoesNotGive) {
  const auto engine = WarmEngine();
  auto call = Call({});
  call->query.k = 21;
  const auto violations = FieldViolationsOf(Run(*engine, std::move(call)).status());
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0].field, "k");
  EXPECT_THAT(violations[0].description, HasSubstr("21 is more than tier any gives, 20"));
  EXPECT_EQ(FieldViolationsOf(Run(*engine, Call({.tier = "none"})).status()).at(0).field, "tier");
  EXPECT_EQ(FieldViolationsOf(Run(*engine, Call({.dim = 9})).status()).at(0).field, "dim");
}

TEST_F(RecommendEngineTest, LearnsWhatItServed) {
  const auto engine = WarmEngine();
  const auto before = snapshot().costs().Predict(Stage::kEncode, 3, 3, 0.5);
  ASSERT_TRUE(before.has_value());
  // The clock stands still: everything takes no time now.
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(Run(*engine, Call({.dim = 64})).ok());
  EXPECT_LT(*snapshot().costs().Predict(Stage::kEncode, 3, 3, 0.5), *before / 10);
  EXPECT_EQ(engine->narrowing(), 0);
}

TEST_F(RecommendEngineTest, CompletesWhatIsQueuedOnShutdownAndRefusesFromThenOn) {
  RecommendEngine engine(snapshot(), {});
  std::vector<std::future<absl::StatusOr<Answered>>> outcomes;
  for (int i = 0; i < 30; ++i) {
    auto call = Call({});
    outcomes.push_back(call->outcome.get_future());
    ASSERT_TRUE(engine.Submit(std::move(call)).ok());
  }
  engine.Shutdown();
  for (auto& outcome : outcomes) EXPECT_TRUE(outcome.get().ok());
  EXPECT_EQ(Run(engine, Call({})).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace nestrec
