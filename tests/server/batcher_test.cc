#include "server/batcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <array>
#include <atomic>
#include <future>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "base/random.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;

// What became of the items of a test.
struct Outcome {
  std::atomic<int> run = 0;
  std::atomic<int> dropped = 0;
  std::atomic<int> destroyed = 0;
};

class Call : public BatchItem {
 public:
  explicit Call(Outcome& outcome, int id = 0, bool cancelled = false)
      : outcome_(outcome), id_(id), cancelled_(cancelled) {}
  ~Call() override { ++outcome_.destroyed; }
  bool Cancelled() const override { return cancelled_; }
  void Drop(const absl::Status& why) override {
    EXPECT_FALSE(why.ok());
    EXPECT_EQ(completed_.fetch_add(1), 0);
    why_ = why;
    ++outcome_.dropped;
  }
  void Run() {
    EXPECT_EQ(completed_.fetch_add(1), 0);
    ++outcome_.run;
  }
  int id() const { return id_; }

 private:
  Outcome& outcome_;
  const int id_;
  const bool cancelled_;
  std::atomic<int> completed_ = 0;
  absl::Status why_;
};

void RunAll(const Batcher::Batch& batch) {
  for (const QueuedItem& item : batch.items) static_cast<Call&>(*item.item).Run();
}

std::unique_ptr<BatchItem> MakeCall(Outcome& outcome, int id = 0, bool cancelled = false) {
  return std::make_unique<Call>(outcome, id, cancelled);
}

// Holds the first batch until Release.
class Gate {
 public:
  void Pass() {
    if (passed_.exchange(true)) return;
    reached_.set_value();
    release_.get_future().wait();
  }
  void WaitUntilReached() { reached_.get_future().wait(); }
  void Release() { release_.set_value(); }

 private:
  std::atomic<bool> passed_ = false;
  std::promise<void> reached_, release_;
};

TEST(BatcherTest, RunsWhatWaitsTogether) {
  Outcome outcome;
  Gate gate;
  std::vector<std::vector<int>> batches;
  {
    Batcher batcher(
        {.queue = {.lanes = {{.capacity = 100}}, .max_batch = 4}, .run = [&](Batcher::Batch batch) {
           gate.Pass();
           batches.emplace_back();
           for (const QueuedItem& item : batch.items) {
             batches.back().push_back(static_cast<Call&>(*item.item).id());
           }
           RunAll(batch);
         }});
    const auto submit = [&](int id) {
      ASSERT_TRUE(batcher.Submit(0, {.item = MakeCall(outcome, id)}).ok());
    };
    submit(0);
    gate.WaitUntilReached();
    for (int id = 1; id <= 6; ++id) submit(id);
    gate.Release();
  }
  EXPECT_THAT(batches, ElementsAre(ElementsAre(0), ElementsAre(1, 2, 3, 4), ElementsAre(5, 6)));
  EXPECT_EQ(outcome.run, 7);
  EXPECT_EQ(outcome.destroyed, 7);
}

TEST(BatcherTest, DropsBeforeTheWorkWhatExpiredOrWasCancelledWhileItWaited) {
  Outcome outcome;
  Gate gate;
  std::atomic<int> seconds = 100;
  const auto at = [](int second) { return Instant(std::chrono::seconds(second)); };
  absl::Duration waited;
  Batcher batcher({.queue = {.lanes = {{.capacity = 100}}, .max_batch = 8},
                   .run =
                       [&](Batcher::Batch batch) {
                         gate.Pass();
                         waited = batch.waited;
                         RunAll(batch);
                       },
                   .clock = [&] { return at(seconds); }});
  ASSERT_TRUE(batcher.Submit(0, {.item = MakeCall(outcome), .accepted = at(100)}).ok());
  gate.WaitUntilReached();
  const auto submit = [&](int accepted, int deadline, bool cancelled) {
    ASSERT_TRUE(batcher
                    .Submit(0, {.item = MakeCall(outcome, 0, cancelled),
                                .accepted = at(accepted),
                                .deadline = at(deadline)})
                    .ok());
  };
  submit(100, 105, false);
  submit(103, 110, false);
  submit(104, 115, false);
  submit(104, 115, true);
  seconds = 110;
  gate.Release();
  batcher.Shutdown();
  EXPECT_EQ(outcome.run, 2);
  EXPECT_EQ(outcome.dropped, 3);
  EXPECT_EQ(waited, absl::Seconds(6));
}

TEST(BatcherTest, WaitsForOthersToJoinButNotBeyondTheDelay) {
  Outcome outcome;
  std::atomic<size_t> batches = 0;
  std::array<std::promise<void>, 2> done;
  Batcher batcher(
      {.queue = {.lanes = {{.capacity = 100}}, .max_batch = 2, .max_delay = absl::Hours(1)},
       .run = [&](Batcher::Batch batch) {
         RunAll(batch);
         done[batches++].set_value();
       }});
  const Instant now = SteadyClock()();
  ASSERT_TRUE(batcher.Submit(0, {.item = MakeCall(outcome), .accepted = now}).ok());
  ASSERT_TRUE(batcher.Submit(0, {.item = MakeCall(outcome), .accepted = now}).ok());
  done[0].get_future().wait();
  EXPECT_EQ(batches, 1u);
  EXPECT_EQ(outcome.run, 2);
  // A delay that is over: the request goes alone.
  ASSERT_TRUE(
      batcher.Submit(0, {.item = MakeCall(outcome), .accepted = now - std::chrono::hours(1)}).ok());
  done[1].get_future().wait();
  EXPECT_EQ(outcome.run, 3);
}

TEST(BatcherTest, DrainsItsQueueOnShutdownAndRefusesFromThenOn) {
  Outcome outcome;
  Gate gate;
  Batcher batcher({.queue = {.lanes = {{.capacity = 100}}, .max_delay = absl::Hours(1)},
                   .run = [&](Batcher::Batch batch) {
                     gate.Pass();
                     RunAll(batch);
                   }});
  ASSERT_TRUE(batcher.Submit(0, {.item = MakeCall(outcome)}).ok());
  gate.WaitUntilReached();
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(batcher.Submit(0, {.item = MakeCall(outcome)}).ok());
  }
  std::thread shutdown([&] { batcher.Shutdown(); });
  gate.Release();
  shutdown.join();
  EXPECT_EQ(outcome.run, 51);
  EXPECT_EQ(batcher.Submit(0, {.item = MakeCall(outcome)}).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(outcome.destroyed, 52);
  batcher.Shutdown();
}

TEST(BatcherTest, AWorkerRunsOpenMpAlone) {
  Outcome outcome;
  std::atomic<int> threads = 0;
  {
    Batcher batcher({.queue = {.lanes = {{.capacity = 1}}}, .run = [&](Batcher::Batch batch) {
                       threads = omp_get_max_threads();
                       RunAll(batch);
                     }});
    ASSERT_TRUE(batcher.Submit(0, {.item = MakeCall(outcome)}).ok());
  }
  EXPECT_EQ(threads, 1);
}

TEST(BatcherTest, CompletesEveryAcceptedItemOnceUnderManyThreads) {
  Outcome outcome;
  std::atomic<int> accepted = 0;
  std::atomic<int> refused = 0;
  constexpr int kCallers = 4;
  constexpr int kCalls = 500;
  {
    Batcher batcher(
        {.queue = {.lanes = {{.capacity = 20, .share = 2}, {.capacity = 5, .priority = 1}},
                   .max_batch = 3,
                   .max_delay = absl::Microseconds(50),
                   .workers = 3},
         .run = [&](Batcher::Batch batch) { RunAll(batch); }});
    std::vector<std::thread> callers;
    for (int caller = 0; caller < kCallers; ++caller) {
      callers.emplace_back([&, caller] {
        Random random(9, static_cast<uint64_t>(caller));
        for (int i = 0; i < kCalls; ++i) {
          const Instant now = SteadyClock()();
          const absl::Status status = batcher.Submit(
              static_cast<size_t>(random.Index(2)),
              {.item = MakeCall(outcome, i, random.Index(5) == 0),
               .accepted = now,
               .deadline = random.Index(3) == 0 ? now + std::chrono::microseconds(random.Index(200))
                                                : Instant::max()});
          ++(status.ok() ? accepted : refused);
        }
      });
    }
    for (std::thread& caller : callers) caller.join();
    batcher.Shutdown();
  }
  EXPECT_EQ(accepted + refused, kCallers * kCalls);
  EXPECT_EQ(outcome.run + outcome.dropped, accepted);
  EXPECT_EQ(outcome.destroyed, kCallers * kCalls);
  EXPECT_GT(outcome.run, 0);
}

}  // namespace
}  // namespace nestrec
