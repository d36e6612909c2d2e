#include "server/batch_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "server/status_details.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Named : public BatchItem {
 public:
  explicit Named(std::string name) : name_(std::move(name)) {}
  bool Cancelled() const override { return false; }
  void Drop(const absl::Status& /*why*/) override {}
  const std::string& name() const { return name_; }

 private:
  const std::string name_;
};

Instant At(int milliseconds) { return Instant(std::chrono::milliseconds(1000 + milliseconds)); }

absl::Status Push(BatchQueue& queue, size_t lane, const std::string& name, int accepted = 0,
                  Instant deadline = Instant::max()) {
  return queue.Push(
      lane,
      {.item = std::make_unique<Named>(name), .accepted = At(accepted), .deadline = deadline});
}

std::vector<std::string> Names(const std::vector<QueuedItem>& items) {
  std::vector<std::string> names;
  for (const QueuedItem& item : items) names.push_back(static_cast<Named&>(*item.item).name());
  return names;
}

// What batches of one take, in their order.
std::string Order(BatchQueue& queue) {
  std::string order;
  while (queue.size() > 0) order += Names(queue.Take(At(0)).batch).at(0);
  return order;
}

TEST(BatchQueueTest, TakesWhatCameFirstUpToABatch) {
  BatchQueue queue({.lanes = {{.capacity = 10}}, .max_batch = 2});
  for (const char* name : {"a", "b", "c"}) ASSERT_TRUE(Push(queue, 0, name).ok());
  EXPECT_THAT(Names(queue.Take(At(0)).batch), ElementsAre("a", "b"));
  EXPECT_THAT(Names(queue.Take(At(0)).batch), ElementsAre("c"));
  EXPECT_TRUE(queue.Take(At(0)).batch.empty());
}

TEST(BatchQueueTest, ABatchIsReadyWhenItIsFullOrItsFirstHasWaitedLongEnough) {
  BatchQueue queue({.lanes = {{.capacity = 10}, {.capacity = 10}},
                    .max_batch = 3,
                    .max_delay = absl::Milliseconds(2)});
  EXPECT_EQ(queue.ReadyAt(), std::nullopt);
  ASSERT_TRUE(Push(queue, 1, "a", 5).ok());
  EXPECT_EQ(queue.ReadyAt(), At(7));
  ASSERT_TRUE(Push(queue, 0, "b", 6).ok());
  EXPECT_EQ(queue.ReadyAt(), At(7));
  ASSERT_TRUE(Push(queue, 0, "c", 6).ok());
  EXPECT_EQ(queue.ReadyAt(), At(5));
  queue.Take(At(6));
  EXPECT_EQ(queue.ReadyAt(), std::nullopt);
}

TEST(BatchQueueTest, RefusesWhatALaneHasNoRoomForAndSaysWhenToComeBack) {
  BatchQueue queue({.lanes = {{.name = "gold", .capacity = 2}, {.capacity = 1}}});
  queue.Served(10, absl::Seconds(2));
  ASSERT_TRUE(Push(queue, 0, "a").ok());
  ASSERT_TRUE(Push(queue, 0, "b").ok());
  const absl::Status full = Push(queue, 0, "c");
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(full.message(), HasSubstr("the queue of tier gold is full (2 requests wait)"));
  EXPECT_EQ(RetryDelayOf(full), absl::Milliseconds(200));  // half of what the two will take
  EXPECT_TRUE(Push(queue, 1, "d").ok());
  EXPECT_EQ(queue.size(), 3u);
}

TEST(BatchQueueTest, RetryDelaysStayWithinBounds) {
  for (const absl::Duration busy : {absl::Nanoseconds(1), absl::Hours(1)}) {
    BatchQueue queue({.lanes = {{.capacity = 1}}});
    queue.Served(1, busy);
    ASSERT_TRUE(Push(queue, 0, "a").ok());
    EXPECT_EQ(RetryDelayOf(Push(queue, 0, "b")),
              busy < absl::Seconds(1) ? absl::Milliseconds(10) : absl::Seconds(5));
  }
}

TEST(BatchQueueTest, SetsWhatExpiredApart) {
  BatchQueue queue({.lanes = {{.capacity = 10}}, .max_batch = 2});
  ASSERT_TRUE(Push(queue, 0, "a", 0, At(5)).ok());
  ASSERT_TRUE(Push(queue, 0, "b", 0, At(15)).ok());
  ASSERT_TRUE(Push(queue, 0, "c", 0, At(10)).ok());
  ASSERT_TRUE(Push(queue, 0, "d", 0).ok());
  const BatchQueue::Taken taken = queue.Take(At(10));
  EXPECT_THAT(Names(taken.batch), ElementsAre("b", "d"));
  EXPECT_THAT(Names(taken.expired), ElementsAre("a", "c"));
  EXPECT_EQ(queue.size(), 0u);
}

TEST(BatchQueueTest, CountsWhatBecameOfEachLanesItems) {
  BatchQueue queue({.lanes = {{.name = "gold", .capacity = 2}, {.name = "jobs", .capacity = 9}},
                    .max_batch = 9});
  ASSERT_TRUE(Push(queue, 0, "a").ok());
  ASSERT_TRUE(Push(queue, 0, "b", 0, At(5)).ok());
  EXPECT_FALSE(Push(queue, 0, "full").ok());
  queue.Served(1, absl::Seconds(1));
  EXPECT_FALSE(Push(queue, 0, "full", 0, At(10)).ok());
  ASSERT_TRUE(Push(queue, 1, "c").ok());
  EXPECT_FALSE(Push(queue, 1, "late", 0, At(10)).ok());
  EXPECT_EQ(queue.stats()[0].waiting, 2u);
  const BatchQueue::Taken taken = queue.Take(At(6));
  EXPECT_THAT(Names(taken.batch), ElementsAre("a", "c"));
  queue.Cancelled(taken.batch[1].lane);
  const std::vector<LaneStats> stats = queue.stats();
  ASSERT_EQ(stats.size(), 2u);
  EXPECT_EQ(stats[0].name, "gold");
  EXPECT_EQ(stats[0].waiting, 0u);
  EXPECT_EQ(stats[0].accepted, 2);
  EXPECT_EQ(stats[0].refused_full, 2);
  EXPECT_EQ(stats[0].refused_late, 0);
  EXPECT_EQ(stats[0].expired, 1);
  EXPECT_EQ(stats[0].cancelled, 0);
  EXPECT_EQ(stats[1].accepted, 1);
  EXPECT_EQ(stats[1].refused_late, 1);
  EXPECT_EQ(stats[1].cancelled, 1);
}

TEST(BatchQueueTest, AHigherPriorityGoesFirst) {
  BatchQueue queue({.lanes = {{.capacity = 10, .priority = 1},
                              {.capacity = 10, .priority = 2},
                              {.capacity = 10, .priority = -1}}});
  for (const char* name : {"x", "y"}) ASSERT_TRUE(Push(queue, 2, name).ok());
  for (const char* name : {"a", "b"}) ASSERT_TRUE(Push(queue, 0, name).ok());
  for (const char* name : {"1", "2"}) ASSERT_TRUE(Push(queue, 1, name).ok());
  EXPECT_EQ(Order(queue), "12abxy");
}

TEST(BatchQueueTest, LanesOfOnePriorityGetTheirShares) {
  BatchQueue queue({.lanes = {{.capacity = 100, .share = 3}, {.capacity = 100, .share = 1}}});
  for (int i = 0; i < 12; ++i) {
    ASSERT_TRUE(Push(queue, 0, "a").ok());
    ASSERT_TRUE(Push(queue, 1, "b").ok());
  }
  const std::string order = Order(queue);
  EXPECT_EQ(std::count(order.begin(), order.begin() + 8, 'a'), 6);
  EXPECT_EQ(std::count(order.begin(), order.begin() + 16, 'a'), 12);
}

TEST(BatchQueueTest, ALaneThatRestedHasNoTurnsSaved) {
  BatchQueue queue({.lanes = {{.capacity = 100}, {.capacity = 100}}});
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(Push(queue, 0, "a").ok());
  for (int i = 0; i < 10; ++i) queue.Take(At(0));
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(Push(queue, 1, "b").ok());
  const std::string order = Order(queue);
  EXPECT_EQ(std::count(order.begin(), order.begin() + 10, 'a'), 5);
}

TEST(BatchQueueTest, ExpectsWhatIsAheadToTakeWhatTheLastOnesTook) {
  BatchQueue queue({.lanes = {{.capacity = 100, .share = 2, .priority = 1},
                              {.capacity = 100, .share = 1, .priority = 1},
                              {.capacity = 100, .priority = 0}},
                    .workers = 2});
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(Push(queue, 0, "a").ok());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Push(queue, 1, "b").ok());
  EXPECT_EQ(queue.ExpectedWait(0), absl::ZeroDuration());  // nothing was served yet
  for (int i = 0; i < 100; ++i) queue.Served(4, absl::Milliseconds(8));
  const auto expect = [&](size_t lane, int ahead) {
    EXPECT_NEAR(absl::ToDoubleMilliseconds(queue.ExpectedWait(lane)), ahead, 1e-6);
  };
  expect(0, 4 + 2);  // of the other lane half as many
  expect(1, 3 + 4);
  expect(2, 7);
}

TEST(BatchQueueTest, RefusesWhatWouldWaitForMoreThanHalfOfItsTime) {
  BatchQueue queue({.lanes = {{.name = "gold", .capacity = 100}}});
  queue.Served(1, absl::Milliseconds(10));
  // Whoever is next may always come: the last one may have been slow by chance.
  EXPECT_TRUE(Push(queue, 0, "a", 0, At(1)).ok());
  EXPECT_TRUE(Push(queue, 0, "b", 0, At(20)).ok());
  const absl::Status late = Push(queue, 0, "c", 0, At(39));
  EXPECT_EQ(late.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(late.message(), HasSubstr("of tier gold takes about 20ms now, too long for a request "
                                        "that has 39ms"));
  EXPECT_EQ(RetryDelayOf(late), absl::Milliseconds(10));
  EXPECT_TRUE(Push(queue, 0, "c", 0, At(40)).ok());
  EXPECT_TRUE(Push(queue, 0, "d").ok());
}

}  // namespace
}  // namespace nestrec
