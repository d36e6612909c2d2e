#include "server/load/saturation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace nestrec {
namespace {

TEST(Saturation, FindsWhatAServerCanDo) {
  for (const double capacity : {3.0, 99.0, 101.0, 2345.0, 80'000.0}) {
    int runs = 0;
    const auto found = FindSaturation({}, [&](double rate) -> absl::StatusOr<double> {
      ++runs;
      return rate <= capacity ? rate : capacity * capacity / rate;  // it falls beyond
    });
    ASSERT_TRUE(found.ok());
    EXPECT_TRUE(found->reached);
    EXPECT_LE(found->sustained_rate, capacity * 1.016);  // where goodput is 97% of the rate
    EXPECT_GE(found->sustained_rate, capacity / 1.06);
    EXPECT_LE(found->peak_goodput, capacity);
    EXPECT_LT(runs, 40);
  }
}

TEST(Saturation, OneDisturbanceDoesNotEndTheSearch) {
  int runs = 0;
  const auto found = FindSaturation({}, [&](double rate) -> absl::StatusOr<double> {
    return ++runs % 4 == 2 ? 0 : std::min(rate, 1000.0);
  });
  ASSERT_TRUE(found.ok());
  EXPECT_NEAR(found->sustained_rate, 1000, 60);
}

TEST(Saturation, SaysWhenTheHighestRateIsSustained) {
  std::vector<double> rates;
  const auto found = FindSaturation({.first_rate = 100, .highest_rate = 300}, [&](double rate) {
    rates.push_back(rate);
    return absl::StatusOr<double>(rate);
  });
  ASSERT_TRUE(found.ok());
  EXPECT_FALSE(found->reached);
  EXPECT_EQ(found->sustained_rate, 300);
  EXPECT_EQ(rates, (std::vector<double>{100, 150, 225, 300}));
}

TEST(Saturation, AServerThatAnswersNothingEndsTheSearch) {
  const auto found = FindSaturation({}, [](double) { return absl::StatusOr<double>(0); });
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->sustained_rate, 0);
  EXPECT_TRUE(found->reached);
}

TEST(Saturation, PassesErrorsOn) {
  const auto found = FindSaturation(
      {}, [](double) -> absl::StatusOr<double> { return absl::UnavailableError("gone"); });
  EXPECT_EQ(found.status().message(), "gone");
}

}  // namespace
}  // namespace nestrec
