#include "index/nested_kernels.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/random.h"
#include "index/float_kernels.h"
#include "index/score.h"
#include "index/vector_kernels.h"
#include "tests/index/test_vectors.h"

namespace nestrec {
namespace {

// Every test runs with every instruction set that the processor has.
class NestedKernels : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { Use(GetParam()); }
  void TearDown() override { Use(0); }  // all of them again

 private:
  static void Use(int64_t targets) {
    hwy::SetSupportedTargetsForTest(targets);
    hwy::GetChosenTarget().DeInit();
  }
};

std::vector<int64_t> AllTargets() {
  std::vector<int64_t> targets;
  for (int64_t left = hwy::SupportedTargets(); left != 0; left &= left - 1) {
    targets.push_back(left & -left);
  }
  return targets;
}

INSTANTIATE_TEST_SUITE_P(Targets, NestedKernels, ::testing::ValuesIn(AllTargets()),
                         [](const auto& info) { return std::string(hwy::TargetName(info.param)); });

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

TEST_P(NestedKernels, FloatDotsAreWithinTheBoundOfASumInFloat) {
  Random random(5);
  const std::vector<std::vector<int64_t>> shapes = {
      {8}, {1, 2, 5}, {8, 8, 16, 32}, {24, 16, 100}, {8, 8, 16, 32, 64, 128, 256, 512}};
  for (const std::vector<int64_t>& widths : shapes) {
    for (const int64_t count : {1, 3, 4, 21}) {
      std::vector<std::vector<float>> queries, rows;
      std::vector<LevelRows> levels;
      for (const int64_t width : widths) {
        queries.push_back(GaussianVector(static_cast<size_t>(width), random));
        rows.push_back(GaussianVector(static_cast<size_t>(width * count), random));
        levels.push_back({queries.back().data(), rows.back().data(), width});
      }
      std::vector<float> sums(static_cast<size_t>(count), 7.0f);
      FloatDots(levels, count, sums.data());
      for (int64_t row = 0; row < count; ++row) {
        double exact = 0, size = 0, terms = 0;
        for (const LevelRows& level : levels) {
          for (int64_t c = 0; c < level.width; ++c) {
            const double product = static_cast<double>(level.query[c]) *
                                   static_cast<double>(level.rows[row * level.width + c]);
            exact += product;
            size += std::abs(product);
            ++terms;
          }
        }
        EXPECT_NEAR(sums[static_cast<size_t>(row)], exact, terms * 0x1p-24 * size);
      }
    }
  }
}

TEST_P(NestedKernels, FloatProductsAreFloatDotsOfEveryQuery) {
  Random random(8);
  // Widths that are whole vectors, after short levels and without, and those that are not.
  for (const std::vector<int64_t>& widths :
       std::vector<std::vector<int64_t>>{{8, 8, 16, 32, 64, 128},
                                         {64, 64},
                                         {16},
                                         {8},
                                         {3, 5, 24, 65},
                                         {128, 32, 16, 16},
                                         std::vector<int64_t>(40, 16)}) {
    int64_t dim = 0;
    for (const int64_t width : widths) dim += width;
    for (const int64_t count : {1, 4, 19}) {
      std::vector<std::vector<float>> rows;
      std::vector<LevelBlock> levels;
      int64_t begin = 0;
      for (const int64_t width : widths) {
        rows.push_back(GaussianVector(static_cast<size_t>(count * width), random));
      }
      for (size_t level = 0; level < widths.size(); ++level) {
        levels.push_back({rows[level].data(), begin, widths[level]});
        begin += widths[level];
      }
      for (const int64_t query_count : {1, 2, 7, 9}) {
        const std::vector<float> queries =
            GaussianVector(static_cast<size_t>(query_count * dim), random);
        constexpr int64_t kStride = 21;
        std::vector<float> sums(static_cast<size_t>(query_count * kStride), -7.0f);
        FloatProducts(levels, queries.data(), query_count, dim, count, sums.data(), kStride);
        for (int64_t q = 0; q < query_count; ++q) {
          for (int64_t i = 0; i < kStride; ++i) {
            const float sum = sums[static_cast<size_t>(q * kStride + i)];
            if (i >= count) {
              EXPECT_EQ(sum, -7.0f);  // not written
              continue;
            }
            double exact = 0;
            double absolute = 0;
            for (const LevelBlock& level : levels) {
              for (int64_t c = 0; c < level.width; ++c) {
                const double product =
                    static_cast<double>(level.rows[i * level.width + c]) *
                    static_cast<double>(queries[static_cast<size_t>(q * dim + level.begin + c)]);
                exact += product;
                absolute += std::abs(product);
              }
            }
            EXPECT_NEAR(static_cast<double>(sum), exact,
                        static_cast<double>(dim + 8) * 0x1p-24 * absolute)
                << "query " << q << ", row " << i << " of " << count << ", dim " << dim;
          }
        }
      }
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
