#include "server/worker_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "server/status_details.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

WorkerPool::Task Counting(std::atomic<int>& run, std::atomic<int>& dropped) {
  return {.cancelled = nullptr,
          .run = [&run](Instant) { ++run; },
          .drop = [&dropped](const absl::Status&) { ++dropped; }};
}

// Keeps a worker busy until Release.
class Blocker {
 public:
  WorkerPool::Task Task() {
    return {.cancelled = nullptr,
            .run =
                [this](Instant) {
                  started_.set_value();
                  release_.get_future().wait();
                },
            .drop = nullptr};
  }
  void WaitUntilStarted() { started_.get_future().wait(); }
  void Release() { release_.set_value(); }

 private:
  std::promise<void> started_, release_;
};

TEST(WorkerPool, RunsEveryTaskOnce) {
  std::atomic<int> run = 0, dropped = 0;
  {
    WorkerPool pool({.threads = 3, .queue_capacity = 1000});
    for (int i = 0; i < 1000; ++i) {
      ASSERT_TRUE(pool.Submit(Counting(run, dropped)).ok());
    }
  }
  EXPECT_EQ(run, 1000);
  EXPECT_EQ(dropped, 0);
}

TEST(WorkerPool, RejectsWhenQueueIsFull) {
  std::atomic<int> run = 0, dropped = 0;
  Blocker blocker;
  WorkerPool pool({.threads = 1, .queue_capacity = 2});
  ASSERT_TRUE(pool.Submit(blocker.Task()).ok());
  blocker.WaitUntilStarted();
  ASSERT_TRUE(pool.Submit(Counting(run, dropped)).ok());
  ASSERT_TRUE(pool.Submit(Counting(run, dropped)).ok());

  const absl::Status full = pool.Submit(Counting(run, dropped));
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(full.message(), HasSubstr("2 requests wait"));
  EXPECT_GT(RetryDelayOf(full).value_or(absl::ZeroDuration()), absl::ZeroDuration());

  blocker.Release();
  pool.Shutdown();
  EXPECT_EQ(run, 2);
  EXPECT_EQ(dropped, 0);
}

TEST(WorkerPool, DropsWhatExpiredWhileItWaited) {
  std::atomic<int64_t> seconds = 100;
  Blocker blocker;
  WorkerPool pool({.threads = 1, .queue_capacity = 8, .clock = [&] {
                     return Instant(std::chrono::seconds(seconds.load()));
                   }});
  ASSERT_TRUE(pool.Submit(blocker.Task()).ok());
  blocker.WaitUntilStarted();
  std::atomic<int> run = 0;
  absl::Status why;
  const auto submit = [&](int64_t deadline) {
    return pool.Submit({.deadline = Instant(std::chrono::seconds(deadline)),
                        .cancelled = nullptr,
                        .run = [&run](Instant) { ++run; },
                        .drop = [&why](const absl::Status& status) { why = status; }});
  };
  ASSERT_TRUE(submit(105).ok());
  ASSERT_TRUE(submit(115).ok());
  seconds = 110;
  blocker.Release();
  pool.Shutdown();
  EXPECT_EQ(run, 1);
  EXPECT_EQ(why.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(WorkerPool, DropsWhatWasCancelledWhileItWaited) {
  Blocker blocker;
  WorkerPool pool({.threads = 1, .queue_capacity = 8});
  ASSERT_TRUE(pool.Submit(blocker.Task()).ok());
  blocker.WaitUntilStarted();
  std::atomic<bool> cancelled = false;
  std::atomic<int> run = 0;
  absl::Status why;
  ASSERT_TRUE(pool.Submit({.cancelled = [&] { return cancelled.load(); },
                           .run = [&run](Instant) { ++run; },
                           .drop = [&why](const absl::Status& status) { why = status; }})
                  .ok());
  cancelled = true;
  blocker.Release();
  pool.Shutdown();
  EXPECT_EQ(run, 0);
  EXPECT_EQ(why.code(), absl::StatusCode::kCancelled);
}

TEST(WorkerPool, DrainsItsQueueOnShutdown) {
  std::atomic<int> run = 0, dropped = 0;
  Blocker blocker;
  WorkerPool pool({.threads = 1, .queue_capacity = 100});
  ASSERT_TRUE(pool.Submit(blocker.Task()).ok());
  blocker.WaitUntilStarted();
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(pool.Submit(Counting(run, dropped)).ok());
  }
  std::thread shutdown([&] { pool.Shutdown(); });
  blocker.Release();
  shutdown.join();
  EXPECT_EQ(run, 100);
  EXPECT_EQ(pool.Submit(Counting(run, dropped)).code(), absl::StatusCode::kUnavailable);
  pool.Shutdown();
}

}  // namespace
}  // namespace nestrec
