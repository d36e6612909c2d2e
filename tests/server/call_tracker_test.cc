#include "server/call_tracker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace nestrec {
namespace {

Instant In(std::chrono::milliseconds time) { return std::chrono::steady_clock::now() + time; }

TEST(CallTracker, DrainWaitsForTheLastCallAndLetsNoneBegin) {
  CallTracker calls;
  ASSERT_TRUE(calls.Begin());
  std::atomic<bool> ended{false};
  std::thread last([&] {
    while (calls.Begin()) calls.End();  // until Drain has begun
    ended = true;
    calls.End();
  });
  EXPECT_EQ(calls.Drain(In(std::chrono::minutes(1))), 0);
  EXPECT_TRUE(ended);
  last.join();
  EXPECT_FALSE(calls.Begin());
}

TEST(CallTracker, DrainSaysHowManyAreLeftAtTheDeadline) {
  CallTracker calls;
  ASSERT_TRUE(calls.Begin());
  EXPECT_EQ(calls.Drain(In(std::chrono::milliseconds(1))), 1);
  calls.End();
}

TEST(CallTracker, QuietBeginsAfterTheLastRefusal) {
  CallTracker calls;
  calls.Drain(In(std::chrono::minutes(1)));
  std::atomic<bool> stop{false};
  std::atomic<int> refused{0};
  std::thread caller([&] {
    while (!stop) refused += calls.Begin() ? 0 : 1;
  });
  while (refused == 0) std::this_thread::yield();
  // Callers that never stop do not keep it for ever.
  const Instant deadline = In(std::chrono::milliseconds(300));
  calls.WaitUntilQuiet(absl::Milliseconds(100), deadline);
  EXPECT_GE(std::chrono::steady_clock::now(), deadline);
  stop = true;
  caller.join();
  const Instant begun = std::chrono::steady_clock::now();
  calls.WaitUntilQuiet(absl::Milliseconds(50), In(std::chrono::minutes(10)));
  const auto waited = std::chrono::steady_clock::now() - begun;
  EXPECT_GE(waited, std::chrono::milliseconds(50));
  EXPECT_LT(waited, std::chrono::minutes(5));
}

}  // namespace
}  // namespace nestrec
