#include "server/width_hold.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/random.h"

namespace nestrec {
namespace {

constexpr absl::Duration kBudget = absl::Milliseconds(10);
constexpr WidthHold::Key kKey = {.tier = 0, .time = kBudget};
constexpr WidthHold::Fit kAll = {.may = 4, .well = 4, .widest = 4};
constexpr WidthHold::Fit kTwo = {.may = 2, .well = 2, .widest = 4};

class WidthHoldTest : public testing::Test {
 protected:
  void Pass(absl::Duration time) { now_ += absl::ToChronoNanoseconds(time); }
  int Allow(const WidthHold::Fit& fit, const WidthHold::Key& key = kKey) {
    return std::min(hold_.Allow(key, fit, now_), fit.widest);
  }
  // Requests of one kind every 10 ms; how long it took until one was allowed `levels`.
  absl::Duration Until(int levels, const WidthHold::Fit& fit) {
    const Instant began = now_;
    while (Allow(fit) < levels && now_ < began + std::chrono::minutes(1)) {
      Pass(absl::Milliseconds(10));
    }
    return Between(began, now_);
  }

  WidthHold hold_{2};
  Instant now_ = Instant(std::chrono::hours(1));
};

TEST_F(WidthHoldTest, HoldsNothingUntilAWidthDoesNotFit) {
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Allow(kAll), 4);
  // That it fits badly alone is no reason.
  EXPECT_EQ(Allow({.may = 4, .well = 1, .widest = 4}), 4);
}

TEST_F(WidthHoldTest, GivesUpAWidthAtOnceAndHasItBackWithinASecond) {
  EXPECT_EQ(Allow(kTwo), 2);
  EXPECT_EQ(Allow(kAll), 2);
  const absl::Duration took = Until(4, kAll);
  EXPECT_GE(took, WidthHold::kShortest);
  EXPECT_LE(took, absl::Seconds(1));
}

TEST_F(WidthHoldTest, AWidthThatFitsWithoutRoomToSpareStaysAway) {
  EXPECT_EQ(Allow(kTwo), 2);
  EXPECT_GE(Until(3, {.may = 4, .well = 2, .widest = 4}), absl::Minutes(1));
}

TEST_F(WidthHoldTest, ComesBackToWhatFittedAllOfTheTime) {
  EXPECT_EQ(Allow({.may = 1, .well = 1, .widest = 4}), 1);
  int levels = 1;
  for (int i = 0; levels == 1 && i < 1000; ++i) {
    Pass(absl::Milliseconds(10));
    levels = Allow({.may = 4, .well = 3 + i % 2, .widest = 4});
  }
  EXPECT_EQ(levels, 3);
}

TEST_F(WidthHoldTest, FewRequestsAreNoProof) {
  EXPECT_EQ(Allow(kTwo), 2);
  for (int i = 1; i < WidthHold::kAnswers; ++i) {
    Pass(absl::Seconds(1));
    EXPECT_EQ(Allow(kAll), 2);
  }
  Pass(absl::Seconds(1));
  EXPECT_EQ(Allow(kAll), 4);
}

TEST_F(WidthHoldTest, WhatWasTriedInVainIsGivenUp) {
  hold_.RanOut(kKey, 3, now_);
  EXPECT_EQ(Allow(kAll), 3);
  hold_.RanOut(kKey, 4, now_);
  EXPECT_EQ(Allow(kAll), 3);
}

TEST_F(WidthHoldTest, EveryRelapseIsHeldLongerAndAQuietTimeForgetsThem) {
  absl::Duration before = absl::ZeroDuration();
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(Allow(kTwo), 2);
    const absl::Duration took = Until(4, kAll);
    EXPECT_GE(took, before * 1.9);
    EXPECT_LE(took, WidthHold::kLongest + absl::Milliseconds(20));
    before = took;
  }
  Pass(WidthHold::kRelapse);
  EXPECT_EQ(Allow(kTwo), 2);
  EXPECT_LE(Until(4, kAll), absl::Seconds(1));
}

TEST_F(WidthHoldTest, FurtherDownAtOneGoIsNoRelapse) {
  for (const int levels : {3, 2, 1}) {
    EXPECT_EQ(Allow({.may = levels, .well = levels, .widest = 4}), levels);
  }
  EXPECT_LE(Until(4, kAll), absl::Seconds(1));
}

TEST_F(WidthHoldTest, AHastyClientAndAnotherTierNarrowNobodyElse) {
  EXPECT_EQ(Allow(kTwo), 2);
  EXPECT_EQ(Allow(kAll, {.tier = 0, .time = 3 * kBudget}), 4);
  EXPECT_EQ(Allow(kAll, {.tier = 1, .time = kBudget}), 4);
  for (const absl::Duration time : {-absl::Seconds(1), absl::ZeroDuration(), absl::Hours(24)}) {
    EXPECT_EQ(Allow(kTwo, {.tier = 1, .time = time}), 2);
  }
}

// A client that sends one request after the other, and widths whose times are about its budget:
// usually below it, often beyond. What it is served changes a few times, and then hardly ever.
TEST_F(WidthHoldTest, ABudgetAtTheEdgeOfAWidthDoesNotFlap) {
  for (const bool held : {false, true}) {
    WidthHold hold(1);
    Random random(11);
    std::vector<int> served;
    int first = 0;
    for (int request = 0; request < 6000; ++request) {  // a minute
      Pass(kBudget);
      const double noise = random.Uniform(0.7, 1.3);
      const auto levels_within = [&](double margin) {
        int levels = 1;
        // 1.2, 2.4, 4.8 and 9.6 ms.
        while (levels < 4 && 1.2 * (1 << levels) * noise * margin <= 10) ++levels;
        return levels;
      };
      const int fits = levels_within(1);
      const WidthHold::Fit fit = {
          .may = fits, .well = levels_within(WidthHold::kMargin), .widest = 4};
      served.push_back(held ? std::min(hold.Allow(kKey, fit, now_), fits) : fits);
      EXPECT_LE(served.back(), fits);
      if (request == 100) first = served.back();
    }
    int changes = 0;
    for (size_t i = 1; i < served.size(); ++i) changes += served[i] != served[i - 1];
    if (held) {
      EXPECT_LE(changes, 16);
      EXPECT_EQ(first, 3);
    } else {
      EXPECT_GT(changes, 1000);
    }
  }
}

}  // namespace
}  // namespace nestrec
