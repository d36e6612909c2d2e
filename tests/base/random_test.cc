#include "base/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace nestrec {
namespace {

TEST(Random, IsTheSameOnEveryPlatform) {
  // Golden values: a change here changes every seeded run.
  Random random(1);
  EXPECT_EQ(random.Next(), 2469588189546311528u);
  EXPECT_EQ(Random(7).Index(1000), Random(7).Index(1000));
  EXPECT_NE(Random(1, 0).Next(), Random(1, 1).Next());
}

TEST(Random, UniformStaysInRangeAndHasItsMean) {
  Random random(3);
  double sum = 0;
  for (int i = 0; i < 100000; ++i) {
    const double value = random.Uniform(-2, 4);
    ASSERT_GE(value, -2);
    ASSERT_LT(value, 4);
    sum += value;
  }
  EXPECT_NEAR(sum / 100000, 1.0, 0.02);
}

TEST(Random, NormalHasUnitVariance) {
  Random random(4);
  double squares = 0;
  for (int i = 0; i < 100000; ++i) {
    const double value = random.Normal();
    squares += value * value;
  }
  EXPECT_NEAR(squares / 100000, 1.0, 0.02);
}

TEST(Random, ShuffleKeepsEveryElement) {
  std::vector<int> values(100);
  std::iota(values.begin(), values.end(), 0);
  const std::vector<int> sorted = values;
  Random(5).Shuffle(std::span<int>(values));
  EXPECT_NE(values, sorted);
  std::sort(values.begin(), values.end());
  EXPECT_EQ(values, sorted);
}

}  // namespace
}  // namespace nestrec
