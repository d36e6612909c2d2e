#include "model/packed_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "base/random.h"

namespace nestrec {
namespace {

std::vector<float> Draw(int64_t count, Random& random) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(random.Normal());
  return values;
}

// Whole panels, vectors and blocks, parts of them, and what is left over.
const std::vector<int64_t> kColumns = {1, 2, 15, 16, 17, 40, 129};
const std::vector<int64_t> kOutputs = {1, 2, 3, 4, 5, 7, 8, 12, 13, 21};
const std::vector<int64_t> kRows = {1, 2, 8, 16, 17, 31, 32, 33, 47, 48, 49, 50, 97};

TEST(PackedRowsTest, ProductsEqualTheDefinitionForEveryShape) {
  Random random(1);
  for (const int64_t columns : kColumns) {
    for (const int64_t outputs : kOutputs) {
      for (const int64_t rows : kRows) {
        const int64_t x_stride = columns + 3;
        const int64_t y_stride = outputs + 2;
        const int64_t weight_stride = columns + 1;
        const std::vector<float> x = Draw(rows * x_stride, random);
        const std::vector<float> weight = Draw(outputs * weight_stride, random);
        const std::vector<float> bias = Draw(outputs, random);
        const std::vector<float> before = Draw(rows * y_stride, random);
        std::vector<float> set = before, add = before, subtract = before, plain = before;
        std::vector<float> memory(static_cast<size_t>(PackedRows::Floats(rows, columns + 5)));
        PackedRows packed(rows, columns + 5, memory.data());
        packed.Extend(x.data(), x_stride, rows, columns);
        PackedProduct product{.x = &packed,
                              .weight = weight.data(),
                              .weight_stride = weight_stride,
                              .columns = columns,
                              .bias = bias.data(),
                              .y = set.data(),
                              .y_stride = y_stride,
                              .outputs = outputs};
        MultiplyPacked(product);
        product.y = add.data();
        AddPacked(product);
        product.y = subtract.data();
        SubtractPacked(product);
        product.y = plain.data();
        product.bias = nullptr;
        MultiplyPacked(product);
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t o = 0; o < y_stride; ++o) {
            const auto at = static_cast<size_t>(r * y_stride + o);
            if (o >= outputs) {  // between the rows
              ASSERT_EQ(set[at], before[at]);
              continue;
            }
            double dot = 0;
            for (int64_t c = 0; c < columns; ++c) {
              dot += static_cast<double>(x[static_cast<size_t>(r * x_stride + c)]) *
                     weight[static_cast<size_t>(o * weight_stride + c)];
            }
            const double shift = bias[static_cast<size_t>(o)];
            const double tolerance = 1e-5 * (1 + std::sqrt(static_cast<double>(columns)));
            ASSERT_NEAR(set[at], shift + dot, tolerance)
                << columns << " " << outputs << " " << rows;
            ASSERT_NEAR(add[at], before[at] + shift + dot, tolerance);
            ASSERT_NEAR(subtract[at], before[at] + shift - dot, tolerance);
            ASSERT_NEAR(plain[at], dot, tolerance);
          }
        }
      }
    }
  }
}

TEST(PackedRowsTest, ARowHasTheSameBitsWhereverItStands) {
  Random random(2);
  constexpr int64_t kWidth = 75;
  constexpr int64_t kCount = 21;
  const std::vector<float> row = Draw(kWidth, random);
  const std::vector<float> weight = Draw(kCount * kWidth, random);
  const auto multiply = [&](const std::vector<float>& x, int64_t rows) {
    std::vector<float> memory(static_cast<size_t>(PackedRows::Floats(rows, kWidth)));
    PackedRows packed(rows, kWidth, memory.data());
    packed.Extend(x.data(), kWidth, rows, kWidth);
    std::vector<float> y(static_cast<size_t>(rows * kCount));
    MultiplyPacked({.x = &packed,
                    .weight = weight.data(),
                    .weight_stride = kWidth,
                    .columns = kWidth,
                    .bias = nullptr,
                    .y = y.data(),
                    .y_stride = kCount,
                    .outputs = kCount});
    return y;
  };
  const std::vector<float> alone = multiply(row, 1);
  for (int64_t rows : {2, 16, 17, 33, 48, 50, 96, 100}) {
    std::vector<float> x = Draw(rows * kWidth, random);
    for (int64_t at = 0; at < rows; ++at) {
      std::vector<float> with = x;
      std::copy(row.begin(), row.end(), with.begin() + at * kWidth);
      const std::vector<float> y = multiply(with, rows);
      ASSERT_EQ(std::memcmp(y.data() + at * kCount, alone.data(), kCount * sizeof(float)), 0)
          << "row " << at << " of " << rows;
    }
  }
}

TEST(PackedRowsTest, ColumnsThatComeLaterAndRowsThatLeaveAreAsIfPackedAtOnce) {
  Random random(3);
  const std::vector<float> x = Draw(60 * 40, random);
  std::vector<float> memory[2] = {std::vector<float>(96 * 40), std::vector<float>(96 * 40)};
  PackedRows grown(60, 40, memory[0].data());
  grown.Extend(x.data(), 40, 60, 8);
  grown.Extend(x.data() + 8, 40, 60, 16);
  grown.Extend(x.data() + 24, 40, 55, 16);
  grown.Shrink(50);
  PackedRows at_once(50, 40, memory[1].data());
  at_once.Extend(x.data(), 40, 50, 40);
  EXPECT_EQ(grown.rows(), 50);
  EXPECT_EQ(grown.columns(), 40);
  for (int64_t r = 0; r < 50; ++r) {
    for (int64_t c = 0; c < 40; ++c) {
      ASSERT_EQ(grown.at(r / 48, c)[r % 48], x[static_cast<size_t>(r * 40 + c)]);
      ASSERT_EQ(at_once.at(r / 48, c)[r % 48], x[static_cast<size_t>(r * 40 + c)]);
    }
  }
  grown.Clear();
  EXPECT_EQ(grown.columns(), 0);
  grown.Extend(x.data(), 40, 60, 3);
  EXPECT_EQ(grown.at(1, 2)[11], x[59 * 40 + 2]);
}

}  // namespace
}  // namespace nestrec
