#include "server/overload_controller.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <vector>

namespace nestrec {
namespace {

class OverloadControllerTest : public testing::Test {
 protected:
  OverloadController Controller(int max_steps, int workers = 1) {
    return OverloadController(
        {.max_steps = max_steps, .workers = workers, .clock = [this] { return now_; }});
  }
  // A batch that began `busy` ago and ends now.
  void Batch(OverloadController& controller, absl::Duration waited, absl::Duration busy,
             absl::Duration busy_if_wider) {
    controller.Began();
    now_ += absl::ToChronoNanoseconds(busy);
    controller.Ended({.waited = waited, .busy = busy, .busy_if_wider = busy_if_wider});
  }
  // An interval of batches of 10 ms that all waited that long.
  void Interval(OverloadController& controller, absl::Duration waited, double share_if_wider = 1) {
    for (int i = 0; i < 5; ++i) {
      Batch(controller, waited, absl::Milliseconds(10), share_if_wider * absl::Milliseconds(10));
    }
  }
  // Of a controller that was at 7, after each interval with such a load.
  std::vector<int> StepsAfter(double share_if_wider, int intervals) {
    OverloadController controller = Controller(7);
    for (int i = 0; i < 3; ++i) Interval(controller, kLong);
    EXPECT_EQ(controller.steps(), 7);
    std::vector<int> steps;
    for (int i = 0; i < intervals; ++i) {
      Rest(absl::Milliseconds(40));
      Batch(controller, kShort, absl::Milliseconds(10), share_if_wider * absl::Milliseconds(50));
      steps.push_back(controller.steps());
    }
    return steps;
  }
  void Rest(absl::Duration length) { now_ += absl::ToChronoNanoseconds(length); }

  static constexpr absl::Duration kLong = absl::Milliseconds(20);
  static constexpr absl::Duration kShort = absl::Milliseconds(1);
  Instant now_ = Instant(std::chrono::hours(1));
};

TEST_F(OverloadControllerTest, BeginsWithNoneAndStaysThereWhileWaitsAreShort) {
  OverloadController controller = Controller(7);
  for (int i = 0; i < 20; ++i) {
    Interval(controller, kShort, 10);
    EXPECT_EQ(controller.steps(), 0);
  }
}

TEST_F(OverloadControllerTest, NarrowsByOneTwoAndFourWidthsUnderAStandingQueue) {
  OverloadController controller = Controller(10);
  std::vector<int> steps;
  for (int i = 0; i < 5; ++i) {
    Interval(controller, kLong);
    steps.push_back(controller.steps());
  }
  EXPECT_EQ(steps, (std::vector<int>{1, 3, 7, 10, 10}));
}

TEST_F(OverloadControllerTest, OneShortWaitInAnIntervalIsABurstAndNoQueue) {
  OverloadController controller = Controller(7);
  for (int i = 0; i < 20; ++i) {
    Batch(controller, kShort, absl::Milliseconds(10), absl::Milliseconds(10));
    for (int j = 0; j < 4; ++j) {
      Batch(controller, kLong, absl::Milliseconds(10), absl::Milliseconds(10));
    }
    EXPECT_EQ(controller.steps(), 0);
  }
}

TEST_F(OverloadControllerTest, StaysWhereTheWiderWidthWouldNotLeaveRoom) {
  OverloadController controller = Controller(7);
  Interval(controller, kLong);
  Interval(controller, kLong);
  ASSERT_EQ(controller.steps(), 3);
  for (int i = 0; i < 100; ++i) {
    Interval(controller, kShort, 0.8);
    EXPECT_EQ(controller.steps(), 3);
  }
  Interval(controller, kShort, 0.5);
  EXPECT_EQ(controller.steps(), 3);  // the batches themselves took all of the time
}

TEST_F(OverloadControllerTest, WidensOneWidthAnIntervalWhereThereIsClearlyRoom) {
  EXPECT_EQ(StepsAfter(/*share_if_wider=*/0.3, 8), (std::vector<int>{6, 5, 4, 3, 2, 1, 0, 0}));
}

TEST_F(OverloadControllerTest, TakesFiveIntervalsToSeeThatThereIsJustRoom) {
  EXPECT_EQ(StepsAfter(/*share_if_wider=*/0.7, 10),
            (std::vector<int>{7, 7, 7, 7, 6, 6, 6, 6, 6, 5}));
  EXPECT_EQ(StepsAfter(/*share_if_wider=*/0.8, 10), std::vector<int>(10, 7));
}

TEST_F(OverloadControllerTest, AQueueThatIsEmptiedIsNoStandingOne) {
  OverloadController controller = Controller(7);
  Interval(controller, kLong);
  ASSERT_EQ(controller.steps(), 1);
  Batch(controller, kLong, absl::Milliseconds(10), absl::Milliseconds(20));
  Rest(absl::Seconds(1));
  EXPECT_EQ(controller.steps(), 0);
}

TEST_F(OverloadControllerTest, IsBackToFullWidthWithinASecondWithoutLoad) {
  OverloadController controller = Controller(10);
  for (int i = 0; i < 10; ++i) Interval(controller, kLong);
  ASSERT_EQ(controller.steps(), 10);
  Rest(absl::Milliseconds(600));
  EXPECT_EQ(controller.steps(), 0);
}

TEST_F(OverloadControllerTest, ALongBatchIsNoRest) {
  OverloadController controller = Controller(7);
  Interval(controller, kLong);
  Interval(controller, kLong);
  ASSERT_EQ(controller.steps(), 3);
  controller.Began();
  Rest(absl::Seconds(2));
  EXPECT_EQ(controller.steps(), 3);
  controller.Ended({.waited = kShort, .busy = absl::Seconds(2), .busy_if_wider = absl::Seconds(4)});
  EXPECT_EQ(controller.steps(), 3);
}

TEST_F(OverloadControllerTest, CountsTheTimeOfAllWorkers) {
  for (const int running : {1, 2, 3, 4}) {
    OverloadController controller = Controller(7, /*workers=*/4);
    for (int i = 0; i < 5; ++i) {
      for (int j = 0; j < running; ++j) controller.Began();
      Rest(absl::Milliseconds(10));
      for (int j = 0; j < running; ++j) {
        controller.Ended({.waited = kLong,
                          .busy = absl::Milliseconds(10),
                          .busy_if_wider = absl::Milliseconds(10)});
      }
    }
    // With half of the workers at rest no queue stands.
    EXPECT_EQ(controller.steps(), running > 2 ? 1 : 0) << running;
  }
}

TEST(OverloadControllerThreadsTest, TakesBatchesFromManyThreads) {
  OverloadController controller({.max_steps = 3, .workers = 4});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&controller] {
      for (int i = 0; i < 2000; ++i) {
        controller.Began();
        controller.Ended({.waited = absl::Milliseconds(i % 20),
                          .busy = absl::Microseconds(1),
                          .busy_if_wider = absl::Microseconds(2)});
        const int steps = controller.steps();
        EXPECT_TRUE(steps >= 0 && steps <= 3) << steps;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace nestrec
