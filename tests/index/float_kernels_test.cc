// Loops over vectors of floats and of halves.
#include "index/float_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "base/random.h"
#include "index/float_products.h"
#include "index/half.h"
#include "index/score.h"
#include "index/vector_kernels.h"
#include "tests/index/every_target.h"
#include "tests/index/test_vectors.h"

namespace nestrec {
namespace {

class FloatKernels : public EveryTarget {};

INSTANTIATE_TEST_SUITE_P(Targets, FloatKernels, ::testing::ValuesIn(AllTargets()), TargetName);

float ValueOf(float value) { return value; }
float ValueOf(Half value) { return FloatOfHalf(value); }

template <class T>
std::vector<T> RandomRows(int64_t count, Random& random) {
  const std::vector<float> values = GaussianVector(static_cast<size_t>(count), random);
  if constexpr (std::is_same_v<T, Half>) {
    std::vector<Half> halves;
    for (const float value : values) halves.push_back(HalfOfFloat(value));
    return halves;
  } else {
    return values;
  }
}

// Written from the standard: the value of a half's bits.
double ByDefinition(int bits) {
  const int exponent = bits >> 10 & 31;
  const int mantissa = bits & 1023;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

TEST(Half, EveryHalfIsTheFloatThatTheStandardSaysAndComesBack) {
  for (int bits = 0; bits < 1 << 16; ++bits) {
    const Half half = static_cast<Half>(bits);
    const float value = FloatOfHalf(half);
    if ((bits >> 10 & 31) < 31) {
      ASSERT_EQ(static_cast<double>(value), ByDefinition(bits)) << bits;
      ASSERT_EQ(std::signbit(value), bits >= 0x8000) << bits;
      ASSERT_EQ(HalfOfFloat(value), half) << bits;
    } else if ((bits & 1023) == 0) {
      ASSERT_TRUE(std::isinf(value)) << bits;
      ASSERT_EQ(HalfOfFloat(value), half) << bits;
    } else {
      ASSERT_TRUE(std::isnan(value)) << bits;
      ASSERT_TRUE(std::isnan(FloatOfHalf(HalfOfFloat(value)))) << bits;
    }
  }
}

TEST(Half, RoundsToTheNearestAndTiesToTheEvenOne) {
  // Between each two neighbours: just below the middle, the middle, just above.
  for (int bits = 0; bits < 0x7bff; ++bits) {
    const float low = FloatOfHalf(static_cast<Half>(bits));
    const float high = FloatOfHalf(static_cast<Half>(bits + 1));
    const float middle = low + (high - low) / 2;
    ASSERT_EQ(HalfOfFloat(std::nextafter(middle, 0.0f)), bits) << middle;
    ASSERT_EQ(HalfOfFloat(std::nextafter(middle, 1e6f)), bits + 1) << middle;
    ASSERT_EQ(HalfOfFloat(middle), bits + bits % 2) << middle;
    ASSERT_EQ(HalfOfFloat(-middle), 0x8000 + bits + bits % 2) << middle;
  }
  EXPECT_EQ(HalfOfFloat(kLargestHalf), 0x7bff);
  EXPECT_EQ(HalfOfFloat(65519.996f), 0x7bff);
  EXPECT_EQ(HalfOfFloat(65520.0f), 0x7c00);
  EXPECT_EQ(HalfOfFloat(1e30f), 0x7c00);
  EXPECT_EQ(HalfOfFloat(1e-30f), 0);
}

TEST_P(FloatKernels, FloatsOfHalvesAreThose) {
  std::vector<Half> halves;
  for (int bits = 0; bits < 1 << 16; ++bits) {
    if ((bits >> 10 & 31) < 31) halves.push_back(static_cast<Half>(bits));
  }
  for (const size_t count : {size_t{0}, size_t{1}, size_t{15}, size_t{37}, halves.size()}) {
    std::vector<float> floats(count + 1, -7.0f);
    FloatsOfHalves(std::span<const Half>(halves).first(count), floats.data());
    for (size_t i = 0; i < count; ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(floats[i]),
                std::bit_cast<uint32_t>(FloatOfHalf(halves[i])));
    }
    EXPECT_EQ(floats[count], -7.0f);  // not written
  }
}

TEST_P(FloatKernels, CanonicalDotsOfHalvesAreThoseOfTheFloatsThatTheyAre) {
  Random random(3);
  for (const size_t width : {1, 7, 8, 9, 16, 31, 64, 257}) {
    constexpr size_t kRows = 21;
    const std::vector<float> query = GaussianVector(width, random);
    const std::vector<Half> rows = RandomRows<Half>(static_cast<int64_t>(width * kRows), random);
    std::vector<float> floats;
    for (const Half value : rows) floats.push_back(FloatOfHalf(value));
    std::vector<double> sums(kRows, 0.5);
    AddCanonicalDots(query.data(), rows.data(), static_cast<int64_t>(width), kRows, sums.data());
    const std::vector<int32_t> listed = {20, 3, 3, 7, 0, 1, 2, 19, 18, 5};
    std::vector<double> listed_sums(listed.size(), 0.5);
    AddCanonicalDotsAt(query.data(), rows.data(), static_cast<int64_t>(width), listed.data(),
                       static_cast<int64_t>(listed.size()), listed_sums.data());
    for (size_t i = 0; i < listed.size(); ++i) {
      EXPECT_EQ(listed_sums[i], sums[static_cast<size_t>(listed[i])]);
    }
    for (size_t row = 0; row < kRows; ++row) {
      EXPECT_EQ(sums[row], 0.5 + Dot(query, std::span(floats).subspan(row * width, width)));
    }
  }
}

// What a product in double gives, and how far one in float may be from it.
struct Exact {
  double sum = 0, tolerance = 0;
};
template <class T>
Exact ProductOf(const float* query, std::span<const LevelBlock<T>> levels, int64_t row,
                int64_t width) {
  double absolute = 0;
  Exact exact;
  for (const LevelBlock<T>& level : levels) {
    for (int64_t c = 0; c < level.width && level.begin + c < width; ++c) {
      const double product = static_cast<double>(ValueOf(level.rows[row * level.width + c])) *
                             static_cast<double>(query[level.begin + c]);
      exact.sum += product;
      absolute += std::abs(product);
    }
  }
  exact.tolerance = static_cast<double>(width + 8) * 0x1p-24 * absolute;
  return exact;
}

template <class T>
struct TestLevels {
  TestLevels(const std::vector<int64_t>& widths, int64_t count, Random& random) {
    for (const int64_t width : widths) rows.push_back(RandomRows<T>(count * width, random));
    for (size_t level = 0; level < widths.size(); ++level) {
      blocks.push_back({rows[level].data(), dim, widths[level]});
      dim += widths[level];
    }
  }
  std::vector<std::vector<T>> rows;
  std::vector<LevelBlock<T>> blocks;
  int64_t dim = 0;
};

const std::vector<std::vector<int64_t>> kShapes = {
    {8},     {1, 2, 5},    {8, 8, 16, 32, 64, 128},          {24, 16, 100},
    {64, 3}, {128, 32, 1}, {8, 8, 16, 32, 64, 128, 256, 50}, std::vector<int64_t>(40, 16)};

template <class T>
void ExpectDotsWithinTheBound() {
  Random random(5);
  for (const std::vector<int64_t>& widths : kShapes) {
    for (const int64_t count : {1, 3, 4, 21}) {
      const TestLevels<T> levels(widths, count, random);
      const std::vector<float> query = GaussianVector(static_cast<size_t>(levels.dim), random);
      std::vector<LevelRows<T>> parts;
      for (const LevelBlock<T>& block : levels.blocks) {
        parts.push_back({query.data() + block.begin, block.rows, block.width});
      }
      std::vector<float> sums(static_cast<size_t>(count), 7.0f);
      FloatDots(parts, count, sums.data());
      for (int64_t row = 0; row < count; ++row) {
        const Exact exact = ProductOf<T>(query.data(), levels.blocks, row, levels.dim);
        EXPECT_NEAR(sums[static_cast<size_t>(row)], exact.sum, exact.tolerance);
      }
    }
  }
}

TEST_P(FloatKernels, DotsAreWithinTheBoundOfASumInFloat) {
  ExpectDotsWithinTheBound<float>();
  ExpectDotsWithinTheBound<Half>();
}

// Queries of falling widths, and floors at which about half of the rows are kept.
template <class T>
void ExpectProductsAboveTheFloors(const std::vector<int64_t>& widths, int64_t count,
                                  int64_t query_count, Random& random) {
  const TestLevels<T> levels(widths, count, random);
  std::vector<std::vector<float>> values;
  std::vector<std::span<const float>> queries;
  std::vector<float> floors;
  for (int64_t q = 0; q < query_count; ++q) {
    const int64_t width = q < query_count / 3 + 1 ? levels.dim : 1 + levels.dim / (q + 1);
    values.push_back(GaussianVector(static_cast<size_t>(width), random));
    floors.push_back(q % 4 == 3 ? -std::numeric_limits<float>::infinity() : 0.0f);
  }
  std::stable_sort(values.begin(), values.end(),
                   [](const auto& a, const auto& b) { return a.size() > b.size(); });
  for (const std::vector<float>& query : values) queries.emplace_back(query);
  std::vector<ProductHit> hits(static_cast<size_t>(count * query_count) + 1, {0, -1, -1});
  const int64_t found =
      FloatProducts<T>(levels.blocks, QueryPanel(queries), floors, count, hits.data());
  ASSERT_LE(found, count * query_count);
  EXPECT_EQ(hits[static_cast<size_t>(found)].row, -1);  // not written
  std::vector<int32_t> last(static_cast<size_t>(query_count), -1);
  std::vector<std::vector<bool>> written(static_cast<size_t>(query_count),
                                         std::vector<bool>(static_cast<size_t>(count)));
  for (const ProductHit& hit : std::span(hits).first(static_cast<size_t>(found))) {
    const auto q = static_cast<size_t>(hit.query);
    ASSERT_LT(hit.query, query_count);
    ASSERT_GT(hit.row, last[q]);  // ascending, each once
    ASSERT_LT(hit.row, count);
    last[q] = hit.row;
    written[q][static_cast<size_t>(hit.row)] = true;
    const Exact exact = ProductOf<T>(values[q].data(), levels.blocks, hit.row,
                                     static_cast<int64_t>(values[q].size()));
    EXPECT_NEAR(hit.sum, exact.sum, exact.tolerance);
    EXPECT_GE(hit.sum, floors[q]);
  }
  for (size_t q = 0; q < values.size(); ++q) {
    for (int64_t row = 0; row < count; ++row) {
      if (written[q][static_cast<size_t>(row)]) continue;
      const Exact exact = ProductOf<T>(values[q].data(), levels.blocks, row,
                                       static_cast<int64_t>(values[q].size()));
      EXPECT_LT(exact.sum - exact.tolerance, floors[q]) << "query " << q << ", row " << row;
    }
  }
}

TEST_P(FloatKernels, ProductsAreTheSumsThatReachAQuerysFloor) {
  Random random(8);
  for (const std::vector<int64_t>& widths : kShapes) {
    for (const int64_t count : {1, 6, 12, 31}) {
      for (const int64_t query_count : {1, 2, 5, 9, 17, 33, 48}) {
        ExpectProductsAboveTheFloors<float>(widths, count, query_count, random);
        ExpectProductsAboveTheFloors<Half>(widths, count, query_count, random);
      }
    }
  }
}

}  // namespace
}  // namespace nestrec
