#include "model/row_products.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/random.h"

namespace nestrec {
namespace {

std::vector<float> Draw(int64_t count, Random& random) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(random.Normal());
  return values;
}

// Whole vectors, parts of them, single values; whole blocks of rows and what is left over.
const std::vector<int64_t> kColumns = {1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 32, 40, 129, 256};
const std::vector<int64_t> kOutputs = {1, 2, 3, 4, 5, 8, 11, 16, 21};
const std::vector<int64_t> kRows = {1, 2, 3, 4, 5, 9};

TEST(RowProductsTest, EqualsTheDefinitionForEveryShape) {
  Random random(1);
  for (const int64_t columns : kColumns) {
    for (const int64_t outputs : kOutputs) {
      for (const int64_t rows : kRows) {
        const int64_t x_stride = columns + 3;
        const int64_t y_stride = outputs + 2;
        const std::vector<float> x = Draw(rows * x_stride, random);
        const std::vector<float> weight = Draw(outputs * columns, random);
        const std::vector<float> bias = Draw(outputs, random);
        const std::vector<float> before = Draw(rows * y_stride, random);
        std::vector<float> set = before, add = before, subtract = before;
        RowProduct product{.x = x.data(),
                           .x_stride = x_stride,
                           .weight = weight.data(),
                           .bias = bias.data(),
                           .y = set.data(),
                           .y_stride = y_stride,
                           .rows = rows,
                           .outputs = outputs,
                           .columns = columns};
        MultiplyRows(product);
        product.y = add.data();
        AddProductRows(product);
        product.y = subtract.data();
        SubtractProductRows(product);
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t o = 0; o < y_stride; ++o) {
            const auto at = static_cast<size_t>(r * y_stride + o);
            if (o >= outputs) {  // between the rows
              EXPECT_EQ(set[at], before[at]);
              continue;
            }
            double dot = 0;
            for (int64_t c = 0; c < columns; ++c) {
              dot += static_cast<double>(x[static_cast<size_t>(r * x_stride + c)]) *
                     weight[static_cast<size_t>(o * columns + c)];
            }
            const double shift = bias[static_cast<size_t>(o)];
            const double tolerance = 1e-5 * (1 + std::sqrt(static_cast<double>(columns)));
            ASSERT_NEAR(set[at], shift + dot, tolerance)
                << columns << " " << outputs << " " << rows;
            ASSERT_NEAR(add[at], before[at] + shift + dot, tolerance);
            ASSERT_NEAR(subtract[at], before[at] + shift - dot, tolerance);
          }
        }
      }
    }
  }
}

TEST(RowProductsTest, WorksWithoutABias) {
  const std::vector<float> x = {1, 2}, weight = {3, 4, 5, 6};
  std::vector<float> y(2);
  MultiplyRows({x.data(), 2, weight.data(), nullptr, y.data(), 2, 1, 2, 2});
  EXPECT_THAT(y, testing::ElementsAre(11, 17));
}

TEST(RowProductsTest, ARowHasTheSameBitsInEveryBatch) {
  Random random(2);
  for (const int64_t columns : kColumns) {
    for (const int64_t outputs : kOutputs) {
      constexpr int64_t kMost = 9;
      const std::vector<float> x = Draw(kMost * columns, random);
      const std::vector<float> weight = Draw(outputs * columns, random);
      std::vector<float> together(static_cast<size_t>(kMost * outputs));
      MultiplyRows({x.data(), columns, weight.data(), nullptr, together.data(), outputs, kMost,
                    outputs, columns});
      for (int64_t row = 0; row < kMost; ++row) {
        std::vector<float> alone(static_cast<size_t>(outputs));
        MultiplyRows({x.data() + row * columns, columns, weight.data(), nullptr, alone.data(),
                      outputs, 1, outputs, columns});
        for (int64_t o = 0; o < outputs; ++o) {
          ASSERT_EQ(alone[static_cast<size_t>(o)], together[static_cast<size_t>(row * outputs + o)])
              << columns << " " << outputs;
        }
      }
    }
  }
}

}  // namespace
}  // namespace nestrec
