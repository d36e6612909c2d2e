#include "index/score.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/random.h"
#include "tests/index/test_vectors.h"

namespace nestrec {
namespace {

TEST(Dot, AddsTheProductsOfEveryLength) {
  for (size_t length = 0; length <= 33; ++length) {
    std::vector<float> a(length), b(length);
    double expected = 0;
    for (size_t i = 0; i < length; ++i) {
      a[i] = static_cast<float>(i) + 1;
      b[i] = static_cast<float>(i % 3) - 1;
      expected += static_cast<double>(a[i]) * b[i];  // small integers: exact in any order
    }
    EXPECT_EQ(Dot(a, b), expected) << length;
  }
}

TEST(ScoreFromSum, StaysFinite) {
  EXPECT_EQ(ScoreFromSum(1e300), std::numeric_limits<float>::max());
  EXPECT_EQ(ScoreFromSum(-1e300), std::numeric_limits<float>::lowest());
  EXPECT_FALSE(std::signbit(ScoreFromSum(-0.0)));
}

TEST(CanonicalScore, OfANarrowWidthDoesNotDependOnTheWideLevels) {
  Random random(1);
  TestVectors wide = TestVectors::Gaussian(50, {8, 24, 64}, random);
  TestVectors narrow = wide;
  narrow.sizes = *NestedSizes::Create({8, 24});
  narrow.levels.resize(2);
  const std::vector<float> query = GaussianVector(64, random);
  for (int64_t item = 1; item <= 50; ++item) {
    EXPECT_EQ(CanonicalScore(std::span(query).first(24), wide.view(), 2, item),
              CanonicalScore(std::span(query).first(24), narrow.view(), 2, item));
  }
}

TEST(CanonicalScore, IsTheInnerProduct) {
  Random random(2);
  const TestVectors vectors = TestVectors::Gaussian(20, {8, 64}, random);
  const std::vector<float> query = GaussianVector(64, random);
  for (int64_t item = 1; item <= 20; ++item) {
    long double expected = 0;
    for (int level = 0; level < 2; ++level) {
      const auto row = vectors.view().row(level, item);
      for (size_t i = 0; i < row.size(); ++i) {
        expected += static_cast<long double>(row[i]) *
                    query[static_cast<size_t>(vectors.sizes.begin(level)) + i];
      }
    }
    EXPECT_FLOAT_EQ(CanonicalScore(query, vectors.view(), 2, item), static_cast<float>(expected));
  }
}

}  // namespace
}  // namespace nestrec
