#include "server/session/session_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "server/session/embedded_log.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

constexpr int kMaxLen = 10;
constexpr int64_t kItems = 50;

// A model and what sessions need of it.
struct TestModel {
  explicit TestModel(uint64_t seed, Architecture architecture = {}, int blocks = 2)
      : model({.sizes = {4, 8, 24},
               .blocks = blocks,
               .items = kItems,
               .architecture = architecture,
               .max_len = kMaxLen,
               .seed = seed}),
        encoder(*Encoder::Create(model.view(), nullptr)),
        version(seed) {
    auto made = Stepper::Create(encoder.get());
    if (made.ok()) stepper = *std::move(made);
  }
  SessionModel view() const {
    return {.encoder = encoder.get(), .stepper = stepper.get(), .version = version};
  }

  RandomModel model;
  std::unique_ptr<const Encoder> encoder;
  std::unique_ptr<const Stepper> stepper;
  uint64_t version;
};

std::vector<SessionEvent> EventsOf(const std::vector<int32_t>& items) {
  std::vector<SessionEvent> events;
  for (const int32_t item : items) {
    events.push_back({item == 0 ? "gone" : RandomModelItemId(item), absl::FromUnixMillis(0)});
  }
  return events;
}

class SessionManagerTest : public testing::Test {
 protected:
  // `state_bytes`: of the cache.
  void Make(size_t state_bytes = 1 << 20) {
    manager_.reset();
    auto log = EmbeddedSessionLog::Open(
        {.folder = folder_.path(), .events_per_session = 20, .log = Log([](absl::string_view) {})});
    ASSERT_TRUE(log.ok()) << log.status();
    manager_ = std::make_unique<SessionManager>(*std::move(log), state_bytes);
  }

  // Records and remembers what the answer has to be made of.
  void Record(const std::string& user, const std::vector<int32_t>& items) {
    ASSERT_TRUE(manager_->Record(user, EventsOf(items), "").ok());
    std::vector<int32_t>& all = recorded_[user];
    all.insert(all.end(), items.begin(), items.end());
  }

  SessionAnswer Encode(const TestModel& model, const std::string& user, int levels,
                       const std::vector<int32_t>& more = {}) {
    const auto history = manager_->Read(user, model.model.catalogue());
    EXPECT_TRUE(history.ok()) << history.status();
    const SessionQuery query{.history = &*history, .more = more, .levels = levels};
    SessionAnswer answer;
    const absl::Status status = manager_->Encode(model.view(), {&query, 1}, {&answer, 1});
    EXPECT_TRUE(status.ok()) << status;
    ++ways_[answer.way];
    return answer;
  }

  // The encoder's answer for the last events of the log, which is the definition.
  std::vector<float> Expected(const TestModel& model, const std::string& user, int levels,
                              const std::vector<int32_t>& more = {}) {
    std::vector<int32_t> items = recorded_[user];
    items.insert(items.end(), more.begin(), more.end());
    items.erase(items.begin(),
                items.end() - static_cast<int64_t>(std::min<size_t>(items.size(), kMaxLen)));
    std::erase(items, 0);
    std::vector<float> z(static_cast<size_t>(model.encoder->sizes().end(levels - 1)));
    const History history(items);
    EXPECT_TRUE(model.encoder->Encode({&history, 1}, levels, z).ok());
    return z;
  }

  void ExpectRight(const TestModel& model, const std::string& user, int levels,
                   const std::vector<int32_t>& more = {}) {
    const std::vector<float> z = Encode(model, user, levels, more).z;
    const std::vector<float> expected = Expected(model, user, levels, more);
    ASSERT_EQ(z.size(), expected.size());
    double size = 0, error = 0;
    for (size_t c = 0; c < z.size(); ++c) {
      size = std::max(size, std::abs(static_cast<double>(expected[c])));
      error = std::max(error, std::abs(static_cast<double>(z[c]) - expected[c]));
    }
    EXPECT_LE(error, 1e-5 * size) << user << " at levels " << levels;
  }

  TempFolder folder_;
  std::unique_ptr<SessionManager> manager_;
  std::map<std::string, std::vector<int32_t>> recorded_;
  std::map<StepWay, int> ways_;
};

TEST_F(SessionManagerTest, AnswersAreTheEncodersThroughModelsWidthsEvictionsAndRestarts) {
  const TestModel lru(1), other(2), one_block(3, {}, 1), gru(4, {.mixer = Mixer::kGru});
  ASSERT_EQ(gru.stepper, nullptr);
  Random random(5);
  Make(20'000);  // 16 shards of a state or two
  for (int step = 0; step < 600; ++step) {
    const std::string user = absl::StrCat("user ", random.Index(12));
    std::vector<int32_t> items;
    for (int64_t i = random.Index(4); i > 0; --i) {
      items.push_back(static_cast<int32_t>(random.Index(8) == 0 ? 0 : 1 + random.Index(kItems)));
    }
    if (!items.empty()) Record(user, items);
    std::vector<int32_t> more;
    for (int64_t i = random.Index(5) == 0 ? random.Index(13) : 0; i > 0; --i) {
      more.push_back(static_cast<int32_t>(1 + random.Index(kItems)));
    }
    const TestModel* models[] = {&lru, &lru, &lru, &lru, &one_block, &other, &gru};
    ExpectRight(*models[random.Index(7)], user, static_cast<int>(1 + random.Index(3)), more);
    if (random.Index(60) == 0) Make(20'000);
    if (random.Index(20) == 0) {
      EXPECT_EQ(*manager_->Forget(user), !recorded_[user].empty());
      recorded_[user].clear();
    }
  }
  EXPECT_LE(manager_->stats().states.bytes, 20'000);
  for (const StepWay way : {StepWay::kRemembered, StepWay::kStepped, StepWay::kReplayed}) {
    EXPECT_GT(ways_[way], 10) << static_cast<int>(way);
  }
}

TEST_F(SessionManagerTest, AReturningUserCostsOneItem) {
  const TestModel model(1);
  Make();
  Record("u", {1, 2, 3});
  EXPECT_EQ(Encode(model, "u", 3).way, StepWay::kReplayed);
  Record("u", {4});
  const SessionAnswer answer = Encode(model, "u", 3);
  EXPECT_EQ(answer.way, StepWay::kStepped);
  EXPECT_EQ(answer.computed, 1);
  EXPECT_EQ(Encode(model, "u", 2).way, StepWay::kRemembered);
  EXPECT_EQ(manager_->stats().computed, 4);
  EXPECT_GT(manager_->StateBytesOf("u"), 24 * 5 * sizeof(float));
  // The events besides.
  EXPECT_GT(manager_->BytesOf("u"), manager_->StateBytesOf("u") + 4 * 8);
  EXPECT_EQ(manager_->BytesOf("nobody"), 0u);
}

TEST_F(SessionManagerTest, AUserWithoutASessionGetsThePriorAndNoState) {
  const TestModel model(1);
  Make();
  ExpectRight(model, "nobody", 3);
  ExpectRight(model, "nobody", 3, {7, 8});
  EXPECT_EQ(manager_->stats().states.states, 0);
}

TEST_F(SessionManagerTest, AForgottenUsersStateGoesAndDoesNotComeBack) {
  const TestModel model(1);
  Make();
  Record("u", {1, 2, 3});
  // An answer that began before the user was forgotten.
  const auto history = manager_->Read("u", model.model.catalogue());
  ExpectRight(model, "u", 3);
  EXPECT_EQ(manager_->stats().states.states, 1);
  EXPECT_TRUE(*manager_->Forget("u"));
  EXPECT_EQ(manager_->stats().states.states, 0);
  EXPECT_FALSE(*manager_->Forget("u"));
  // A new session does not continue an old one's state, however many events it has.
  recorded_.clear();
  const SessionQuery query{.history = &*history, .more = {}, .levels = 3};
  SessionAnswer answer;
  ASSERT_TRUE(manager_->Encode(model.view(), {&query, 1}, {&answer, 1}).ok());
  Record("u", {9, 8, 7, 6});
  ExpectRight(model, "u", 3);
}

TEST(StateCacheTest, WhatWasErasedMeanwhileIsNotKept) {
  StateCache cache(1 << 20);
  const NestedSizes sizes = *NestedSizes::Create({4, 8});
  const StateCache::Key key{.user_id = "u", .session = 1, .model = 1};
  const auto state = [&] {
    SessionState made;
    made.Grow(sizes, 2, 3);
    made.set_absorbed(0, {.begin = 0, .end = 5});
    return made;
  };
  StateCache::Found found = cache.Get(key);
  cache.Erase("u");
  cache.Put(key, state(), found.erasures, sizes, 3);
  EXPECT_EQ(cache.Get(key).state, nullptr);
  found = cache.Get(key);
  cache.Put(key, state(), found.erasures, sizes, 3);
  ASSERT_NE(cache.Get(key).state, nullptr);
  EXPECT_EQ(cache.Get({.user_id = "u", .session = 2, .model = 1}).state, nullptr);
  EXPECT_EQ(cache.Get({.user_id = "u", .session = 1, .model = 2}).state, nullptr);
  EXPECT_EQ(cache.stats().states, 1);
  EXPECT_EQ(static_cast<size_t>(cache.stats().bytes), cache.BytesOf("u"));
  cache.Erase("u");
  EXPECT_EQ(cache.stats().bytes, 0);
}

TEST(StateCacheTest, ALateStateDoesNotReplaceAFurtherOne) {
  StateCache cache(1 << 20);
  const NestedSizes sizes = *NestedSizes::Create({4, 8});
  const StateCache::Key key{.user_id = "u", .session = 1, .model = 1};
  const auto put = [&](int64_t narrow_end, int64_t wide_end) {
    SessionState state;
    state.Grow(sizes, 2, 3);
    state.set_absorbed(0, {.begin = 0, .end = narrow_end});
    state.set_absorbed(1, {.begin = 0, .end = wide_end});
    cache.Put(key, std::move(state), 0, sizes, 3);
  };
  put(7, 3);
  put(5, 5);
  EXPECT_EQ(cache.Get(key).state->absorbed(0).end, 7);
  EXPECT_EQ(cache.Get(key).state->absorbed(1).end, 5);
}

TEST(StateCacheTest, TheLeastRecentlyUsedGiveWay) {
  const NestedSizes sizes = *NestedSizes::Create({256});
  StateCache cache(16 * 20'000);  // about six states a shard
  for (int i = 0; i < 400; ++i) {
    const std::string user = absl::StrCat("user ", i);
    SessionState state;
    state.Grow(sizes, 1, 3);
    const StateCache::Key key{.user_id = user, .session = 1, .model = 1};
    cache.Put(key, std::move(state), cache.Get(key).erasures, sizes, 3);
    EXPECT_NE(cache.Get({.user_id = "user 0", .session = 1, .model = 1}).state, nullptr) << i;
    EXPECT_LE(cache.stats().bytes, 16 * 20'000);
  }
  EXPECT_GT(cache.stats().evicted, 250);
  EXPECT_EQ(cache.Get({.user_id = "user 1", .session = 1, .model = 1}).state, nullptr);
}

TEST(StateCacheTest, NoRoomKeepsNothing) {
  StateCache cache(0);
  const NestedSizes sizes = *NestedSizes::Create({4});
  SessionState state;
  state.Grow(sizes, 1, 3);
  cache.Put({.user_id = "u", .session = 1, .model = 1}, std::move(state), 0, sizes, 3);
  EXPECT_EQ(cache.stats().states, 0);
}

// Every answer is that of some moment of the log while it was asked for.
TEST_F(SessionManagerTest, RecordingAnsweringAndForgettingAtOnceGivesAnswersOfTheLog) {
  const TestModel model(1);
  Make(60'000);
  constexpr int kUsers = 4;
  std::vector<std::thread> threads;
  std::atomic<int> failures{0};
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      Random random(static_cast<uint64_t>(t) + 50);
      for (int i = 0; i < 120; ++i) {
        const std::string user = absl::StrCat("user ", random.Index(kUsers));
        const int64_t kind = random.Index(20);
        if (kind == 0) {
          if (!manager_->Forget(user).ok()) ++failures;
        } else if (kind < 9) {
          const auto item = static_cast<int32_t>(1 + random.Index(kItems));
          if (!manager_->Record(user, EventsOf({item}), absl::StrCat(t, " ", i)).ok()) ++failures;
        } else {
          const auto history = manager_->Read(user, model.model.catalogue());
          const int levels = static_cast<int>(1 + random.Index(3));
          const SessionQuery query{.history = &*history, .more = {}, .levels = levels};
          SessionAnswer answer;
          if (!manager_->Encode(model.view(), {&query, 1}, {&answer, 1}).ok()) ++failures;
          const History window =
              History(history->items).last(std::min<size_t>(history->items.size(), kMaxLen));
          std::vector<float> expected(answer.z.size());
          if (!model.encoder->Encode({&window, 1}, levels, expected).ok()) ++failures;
          for (size_t c = 0; c < expected.size(); ++c) {
            if (std::abs(expected[c] - answer.z[c]) > 1e-4) ++failures;
          }
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
}

}  // namespace
}  // namespace nestrec
