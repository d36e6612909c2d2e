#include "index/nested_kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/random.h"
#include "index/score.h"
#include "index/vector_kernels.h"
#include "tests/index/every_target.h"
#include "tests/index/test_vectors.h"

namespace nestrec {
namespace {

class NestedKernels : public EveryTarget {};

INSTANTIATE_TEST_SUITE_P(Targets, NestedKernels, ::testing::ValuesIn(AllTargets()), TargetName);

std::vector<uint8_t> RandomBytes(int64_t count, int most, Random& random) {
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.Index(most + 1));
  return bytes;
}

std::vector<int8_t> RandomWeights(int64_t count, Random& random) {
  std::vector<int8_t> weights(static_cast<size_t>(count));
  for (int8_t& weight : weights) weight = static_cast<int8_t>(random.Index(255) - 127);
  return weights;
}

TEST_P(NestedKernels, NibbleDotsEqualsTheSumForEveryRowLengthAndCount) {
  Random random(1);
  for (const int64_t row_bytes : {16, 32, 48, 64, 96, 128, 256, 320}) {
    constexpr int64_t kRows = 41;
    const std::vector<uint8_t> codes = RandomBytes(kRows * row_bytes, 255, random);
    const std::vector<int8_t> low = RandomWeights(row_bytes, random);
    const std::vector<int8_t> high = RandomWeights(row_bytes, random);
    const RowWeights weights = {low.data(), high.data(), 7, 0.5f};
    std::vector<float> expected;
    for (int64_t row = 0; row < kRows; ++row) {
      int32_t dot = 0;
      for (int64_t at = 0; at < row_bytes; ++at) {
        const int code = codes[static_cast<size_t>(row * row_bytes + at)];
        dot += (code & 15) * low[static_cast<size_t>(at)] +
               (code >> 4) * high[static_cast<size_t>(at)];
      }
      expected.push_back(3.0f + 0.5f * static_cast<float>(2 * dot - 7));
    }
    for (const int64_t count : {0, 1, 3, 4, 5, 40}) {
      std::vector<float> sums(static_cast<size_t>(count), 3.0f);
      AddNibbleDots({codes.data(), row_bytes}, 1, count, weights, sums.data());
      std::vector<int32_t> listed;
      for (int64_t i = 0; i < count; ++i) listed.push_back(static_cast<int32_t>(kRows - 1 - i));
      std::vector<float> listed_sums(static_cast<size_t>(count), 3.0f);
      AddNibbleDotsAt({codes.data(), row_bytes}, listed.data(), count, weights, listed_sums.data());
      for (int64_t i = 0; i < count; ++i) {
        EXPECT_EQ(sums[i], expected[1 + i]) << row_bytes << " " << count;
        EXPECT_EQ(listed_sums[i], expected[kRows - 1 - i]) << row_bytes << " " << count;
      }
    }
  }
}

TEST_P(NestedKernels, ByteDotsEqualsTheSumForEveryRowLengthAndCount) {
  Random random(2);
  for (const int64_t row_bytes : {16, 32, 48, 64}) {
    constexpr int64_t kRows = 131;
    const std::vector<uint8_t> codes = RandomBytes(kRows * row_bytes, 127, random);
    const std::vector<int8_t> low = RandomWeights(row_bytes, random);
    const RowWeights weights = {low.data(), nullptr, 0, 0.25f};
    std::vector<float> expected;
    for (int64_t row = 0; row < kRows; ++row) {
      int32_t dot = 0;
      for (int64_t at = 0; at < row_bytes; ++at) {
        dot += codes[static_cast<size_t>(row * row_bytes + at)] * low[static_cast<size_t>(at)];
      }
      expected.push_back(1.0f + 0.25f * static_cast<float>(dot));
    }
    for (const int64_t count : {0, 1, 15, 16, 17, 130}) {
      std::vector<float> sums(static_cast<size_t>(count), 1.0f);
      AddByteDots({codes.data(), row_bytes}, 1, count, weights, sums.data());
      std::vector<int32_t> listed;
      for (int64_t i = 0; i < count; ++i) listed.push_back(static_cast<int32_t>(kRows - 1 - i));
      std::vector<float> listed_sums(static_cast<size_t>(count), 1.0f);
      AddByteDotsAt({codes.data(), row_bytes}, listed.data(), count, weights, listed_sums.data());
      for (int64_t i = 0; i < count; ++i) {
        EXPECT_EQ(sums[i], expected[1 + i]) << row_bytes << " " << count;
        EXPECT_EQ(listed_sums[i], expected[kRows - 1 - i]) << row_bytes << " " << count;
      }
    }
  }
}

TEST_P(NestedKernels, CanonicalDotsEqualTheScoresOwnDotBitForBit) {
  Random random(3);
  for (const size_t width : {1, 7, 8, 9, 16, 31, 64, 257}) {
    constexpr size_t kRows = 21;
    const std::vector<float> query = GaussianVector(width, random);
    const std::vector<float> rows = GaussianVector(width * kRows, random);
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
      EXPECT_EQ(sums[row], 0.5 + Dot(query, std::span(rows).subspan(row * width, width)));
    }
  }
}

TEST_P(NestedKernels, SelectNotBelowKeepsEqualValuesAndNaN) {
  Random random(4);
  for (const int64_t count : {0, 1, 15, 64, 100}) {
    std::vector<float> values(static_cast<size_t>(count));
    std::vector<int32_t> expected;
    for (int64_t i = 0; i < count; ++i) {
      values[i] = i % 5 == 0   ? 1.0f
                  : i % 7 == 0 ? std::nanf("")
                               : static_cast<float>(random.Normal());
      if (!(values[i] < 1.0f)) expected.push_back(static_cast<int32_t>(100 + i));
    }
    std::vector<int32_t> selected(static_cast<size_t>(count) + 64);
    selected.resize(
        static_cast<size_t>(SelectNotBelow(values.data(), count, 1.0f, 100, selected.data())));
    EXPECT_EQ(selected, expected);
  }
}

TEST_P(NestedKernels, HighestIsTheLargestAndInfinityForNaN) {
  std::vector<float> values(37, -3.0f);
  EXPECT_EQ(Highest(values.data(), 37), -3.0f);
  values[36] = 2.0f;
  EXPECT_EQ(Highest(values.data(), 37), 2.0f);
  values[3] = std::nanf("");
  EXPECT_EQ(Highest(values.data(), 37), std::numeric_limits<float>::infinity());
  EXPECT_EQ(Highest(values.data(), 0), -std::numeric_limits<float>::infinity());
}

TEST_P(NestedKernels, CombinationsAddRowsTimesFactors) {
  Random random(5);
  for (const int64_t columns : {1, 16, 32, 45}) {
    for (const int64_t count : {0, 1, 2, 3, 8, 11}) {
      constexpr int64_t kRows = 19;
      const std::vector<float> matrix =
          GaussianVector(static_cast<size_t>(kRows * columns), random);
      std::vector<double> factors(static_cast<size_t>(count * kRows));
      for (double& factor : factors) factor = random.Normal();
      std::vector<double> out(static_cast<size_t>(count * columns), 1.0);
      AddCombinations(matrix.data(), kRows, columns, count, factors.data(), out.data());
      for (int64_t q = 0; q < count; ++q) {
        for (int64_t c = 0; c < columns; ++c) {
          double expected = 1.0;
          for (int64_t r = 0; r < kRows; ++r) {
            expected += static_cast<double>(matrix[r * columns + c]) * factors[q * kRows + r];
          }
          EXPECT_NEAR(out[q * columns + c], expected, 1e-12);
        }
      }
    }
  }
}

TEST_P(NestedKernels, EncodeGroupLeavesWhatItSaysItLeaves) {
  Random random(6);
  for (const int64_t width : {1, 16, 31, 100, 128}) {
    const int64_t row_bytes = (width + 31) / 32 * 16;
    std::vector<float> coordinates = GaussianVector(static_cast<size_t>(width), random);
    coordinates[0] = 9;  // out of the codes' range
    const std::vector<float> steps(static_cast<size_t>(width), 0.4f);
    const std::vector<float> inverse(static_cast<size_t>(width), 1 / 0.4f);
    std::vector<uint8_t> high(static_cast<size_t>(row_bytes));
    std::vector<uint8_t> low(static_cast<size_t>(row_bytes));
    const EncodedGroup encoded = EncodeGroup(coordinates.data(), inverse.data(), steps.data(),
                                             width, row_bytes, high.data(), low.data());
    double square = 0, error4 = 0, error8 = 0, value4 = 0;
    for (int64_t c = 0; c < width; ++c) {
      const int64_t at = c % row_bytes;
      const int shift = c < row_bytes ? 0 : 4;
      const int upper = high[at] >> shift & 15;
      const int lower = low[at] >> shift & 15;
      const double x = coordinates[c];
      const double step = steps[c];
      square += x * x;
      error4 += std::pow(x - (upper - 7.5) * step, 2);
      error8 += std::pow(x - (16 * upper + lower - 127.5) / 16 * step, 2);
      value4 += std::pow(upper - 7.5, 2);
      if (std::abs(x) < 8 * step) {
        EXPECT_LE(std::abs(x - (upper - 7.5) * step), step / 2 * 1.001);
      }
    }
    EXPECT_NEAR(encoded.square, square, 1e-4 * square) << width;
    EXPECT_NEAR(encoded.error4, error4, 1e-4 * error4) << width;
    EXPECT_NEAR(encoded.error8, error8, 1e-4 * error8) << width;
    // Padded columns have the code in the middle, of value 1/2.
    EXPECT_GE(encoded.value4, value4 * (1 - 1e-4)) << width;
    EXPECT_LE(encoded.value4, value4 + 16) << width;
  }
}

}  // namespace
}  // namespace nestrec
