#include "model/prepare/randomised_svd.h"

#include <cmath>
#include <vector>

#include "base/random.h"
#include "gtest/gtest.h"

namespace nestrec {
namespace {

SparseMatrix FromDense(const std::vector<std::vector<double>>& dense) {
  SparseMatrix matrix{.rows = static_cast<int64_t>(dense.size()),
                      .columns = static_cast<int64_t>(dense[0].size())};
  for (const std::vector<double>& row : dense) {
    for (size_t c = 0; c < row.size(); ++c) {
      if (row[c] == 0) continue;
      matrix.column.push_back(static_cast<int32_t>(c));
      matrix.value.push_back(static_cast<float>(row[c]));
    }
    matrix.row_begin.push_back(static_cast<int64_t>(matrix.value.size()));
  }
  return matrix;
}

// Orthonormal columns by Gram-Schmidt.
std::vector<std::vector<double>> RandomBasis(Random& random, size_t n, size_t k) {
  std::vector<std::vector<double>> vectors;
  while (vectors.size() < k) {
    std::vector<double> v(n);
    for (double& x : v) x = random.Normal();
    for (const std::vector<double>& u : vectors) {
      double dot = 0;
      for (size_t i = 0; i < n; ++i) dot += u[i] * v[i];
      for (size_t i = 0; i < n; ++i) v[i] -= dot * u[i];
    }
    double square = 0;
    for (const double x : v) square += x * x;
    for (double& x : v) x /= std::sqrt(square);
    vectors.push_back(v);
  }
  return vectors;
}

TEST(RandomisedSvd, FindsKnownSingularVectors) {
  Random random(2);
  const size_t rows = 80, columns = 60, rank = 12;
  const auto left = RandomBasis(random, rows, rank);
  const auto right = RandomBasis(random, columns, rank);
  std::vector<std::vector<double>> dense(rows, std::vector<double>(columns));
  const auto value = [](size_t k) { return 10.0 * std::pow(0.7, static_cast<double>(k)); };
  for (size_t k = 0; k < rank; ++k) {
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < columns; ++c) dense[r][c] += value(k) * left[k][r] * right[k][c];
    }
  }
  const auto svd = RandomisedSvd(FromDense(dense), 8, 3, 1);
  ASSERT_TRUE(svd.ok()) << svd.status();
  EXPECT_EQ(svd->rank, 8);
  for (size_t k = 0; k < 8; ++k) {
    EXPECT_NEAR(svd->values[k], value(k), 1e-4);
    double dot = 0;
    for (size_t c = 0; c < columns; ++c) dot += right[k][c] * svd->vectors[c * 8 + k];
    EXPECT_NEAR(std::abs(dot), 1, 1e-4) << k;
  }
}

TEST(RandomisedSvd, ColumnsBeyondTheRankAreZero) {
  const auto svd = RandomisedSvd(FromDense({{1, 0, 2}, {2, 0, 4}, {0, 3, 0}, {0, 0, 0}}), 5, 2, 1);
  ASSERT_TRUE(svd.ok()) << svd.status();
  EXPECT_EQ(svd->rank, 2);
  EXPECT_NEAR(svd->values[0], 5, 1e-5);
  EXPECT_NEAR(svd->values[1], 3, 1e-5);
  EXPECT_NEAR(svd->vectors[0 * 5 + 0], 1 / std::sqrt(5), 1e-5);
  EXPECT_NEAR(svd->vectors[2 * 5 + 0], 2 / std::sqrt(5), 1e-5);
  EXPECT_NEAR(svd->vectors[1 * 5 + 1], 1, 1e-5);
  for (size_t c = 0; c < 3; ++c) {
    for (size_t k = 2; k < 5; ++k) EXPECT_EQ(svd->vectors[c * 5 + k], 0);
  }
}

TEST(RandomisedSvd, RepeatsItselfAndFixesSigns) {
  Random random(4);
  std::vector<std::vector<double>> dense(30, std::vector<double>(50));
  for (auto& row : dense) {
    for (double& x : row) x = random.Uniform() < 0.2 ? random.Normal() : 0;
  }
  const SparseMatrix matrix = FromDense(dense);
  const auto first = RandomisedSvd(matrix, 10, 6, 1);
  const auto again = RandomisedSvd(matrix, 10, 6, 1);
  const auto other = RandomisedSvd(matrix, 10, 6, 2);
  ASSERT_TRUE(first.ok() && again.ok() && other.ok());
  EXPECT_EQ(first->vectors, again->vectors);
  for (size_t i = 0; i < first->vectors.size(); ++i)
    EXPECT_NEAR(first->vectors[i], other->vectors[i], 5e-3);
  // Orthonormal.
  for (size_t a = 0; a < 10; ++a) {
    for (size_t b = 0; b <= a; ++b) {
      double dot = 0;
      for (size_t c = 0; c < 50; ++c)
        dot += first->vectors[c * 10 + a] * first->vectors[c * 10 + b];
      EXPECT_NEAR(dot, a == b ? 1 : 0, 1e-5);
    }
  }
}

TEST(RandomisedSvd, RefusesEmptyMatricesAndWidths) {
  EXPECT_EQ(RandomisedSvd(SparseMatrix(), 3, 1, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(RandomisedSvd(FromDense({{1}}), 0, 1, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  const auto one = RandomisedSvd(FromDense({{-2}}), 1, 1, 1);
  ASSERT_TRUE(one.ok());
  EXPECT_NEAR(one->values[0], 2, 1e-6);
  EXPECT_NEAR(one->vectors[0], 1, 1e-6);
}

}  // namespace
}  // namespace nestrec
