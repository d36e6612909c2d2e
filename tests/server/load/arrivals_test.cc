#include "server/load/arrivals.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace nestrec {
namespace {

TEST(Arrivals, ConstantOnesAreEvenlySpaced) {
  Random random(1);
  const auto due = ScheduleArrivals(Arrivals::kConstant, 250, absl::Seconds(2), random);
  ASSERT_EQ(due.size(), 500u);
  EXPECT_EQ(due.front().count(), 0);
  EXPECT_EQ(due.back().count(), 499 * 4'000'000);
}

TEST(Arrivals, PoissonGapsHaveTheMeanAndTheSpreadOfAnExponential) {
  Random random(2);
  const auto due = ScheduleArrivals(Arrivals::kPoisson, 1000, absl::Seconds(100), random);
  EXPECT_TRUE(std::is_sorted(due.begin(), due.end()));
  EXPECT_LT(due.back(), std::chrono::seconds(100));
  const auto count = static_cast<double>(due.size());
  EXPECT_NEAR(count, 100'000, 5 * std::sqrt(100'000));
  double squares = 0;
  for (size_t i = 1; i < due.size(); ++i) {
    const double gap = std::chrono::duration<double>(due[i] - due[i - 1]).count();
    squares += gap * gap;
  }
  // The mean square of an exponential is twice its mean's.
  EXPECT_NEAR(squares / count, 2e-6, 0.1e-6);
}

TEST(Arrivals, ASeedFixesThem) {
  Random a(5), b(5), c(6);
  const auto first = ScheduleArrivals(Arrivals::kPoisson, 100, absl::Seconds(1), a);
  EXPECT_EQ(first, ScheduleArrivals(Arrivals::kPoisson, 100, absl::Seconds(1), b));
  EXPECT_NE(first, ScheduleArrivals(Arrivals::kPoisson, 100, absl::Seconds(1), c));
}

TEST(Arrivals, NoTimeNoCalls) {
  Random random(1);
  EXPECT_TRUE(ScheduleArrivals(Arrivals::kConstant, 10, absl::ZeroDuration(), random).empty());
  EXPECT_TRUE(ScheduleArrivals(Arrivals::kPoisson, 10, absl::ZeroDuration(), random).empty());
}

}  // namespace
}  // namespace nestrec
