#include "index/symmetric_matrix.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/random.h"

namespace nestrec {
namespace {

constexpr int64_t kDim = 24;

std::vector<double> RandomRows(int64_t count, int64_t width, Random& random) {
  std::vector<double> rows(static_cast<size_t>(count * width));
  for (double& value : rows) value = random.Normal();
  return rows;
}

// Rows of a product [n, rank] x [rank, kDim].
std::vector<double> RowsOfRank(int64_t n, int64_t rank, Random& random) {
  const std::vector<double> left = RandomRows(n, rank, random);
  const std::vector<double> right = RandomRows(rank, kDim, random);
  std::vector<double> rows(static_cast<size_t>(n * kDim));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t r = 0; r < rank; ++r) {
      for (int64_t c = 0; c < kDim; ++c) {
        rows[static_cast<size_t>(i * kDim + c)] +=
            left[static_cast<size_t>(i * rank + r)] * right[static_cast<size_t>(r * kDim + c)];
      }
    }
  }
  return rows;
}

std::vector<double> LowerMoments(const std::vector<double>& rows) {
  std::vector<double> moments(kDim * kDim);
  AddSecondMoments(rows, kDim, 0.5, moments);
  return moments;
}

TEST(SymmetricMatrix, MomentsAreSumsOfProductsInTheLowerTriangle) {
  Random random(1);
  const std::vector<double> rows = RandomRows(50, kDim, random);
  std::vector<double> moments = LowerMoments(rows);
  std::vector<double> mirrored = moments;
  MirrorLower(kDim, mirrored);
  for (int64_t r = 0; r < kDim; ++r) {
    for (int64_t c = 0; c < kDim; ++c) {
      double sum = 0;
      for (int64_t i = 0; i < 50; ++i) {
        sum +=
            0.5 * rows[static_cast<size_t>(i * kDim + r)] * rows[static_cast<size_t>(i * kDim + c)];
      }
      const size_t at = static_cast<size_t>(r * kDim + c);
      EXPECT_NEAR(moments[at], c <= r ? sum : 0, 1e-10);
      EXPECT_NEAR(mirrored[at], sum, 1e-10);
    }
  }
}

TEST(SymmetricMatrix, EigenvectorsOfTheLowerTriangleRebuildTheMatrix) {
  Random random(2);
  std::vector<double> matrix = LowerMoments(RandomRows(50, kDim, random));
  std::vector<double> whole = matrix;
  MirrorLower(kDim, whole);
  const auto values = Eigen(matrix, kDim);
  ASSERT_TRUE(values.ok()) << values.status();
  std::vector<double> rebuilt(kDim * kDim);
  for (int64_t i = 0; i < kDim; ++i) {
    if (i > 0) {
      EXPECT_LE((*values)[static_cast<size_t>(i) - 1], (*values)[static_cast<size_t>(i)]);
    }
    const double* const vector = matrix.data() + i * kDim;
    for (int64_t r = 0; r < kDim; ++r) {
      for (int64_t c = 0; c < kDim; ++c) {
        rebuilt[static_cast<size_t>(r * kDim + c)] +=
            (*values)[static_cast<size_t>(i)] * vector[r] * vector[c];
      }
    }
  }
  for (size_t i = 0; i < rebuilt.size(); ++i) EXPECT_NEAR(rebuilt[i], whole[i], 1e-9);
}

TEST(SymmetricMatrix, RankIsThatOfTheRows) {
  Random random(3);
  for (const int64_t rank : {1, 2, 11, 23, 24}) {
    std::vector<double> moments = LowerMoments(RowsOfRank(200, rank, random));
    EXPECT_EQ(PivotedRank(moments, kDim, 1e-8), rank);
  }
  std::vector<double> zeros(kDim * kDim);
  EXPECT_EQ(PivotedRank(zeros, kDim, 1e-8), 0);
}

TEST(SymmetricMatrix, RankDoesNotCountWhatIsSmall) {
  Random random(4);
  std::vector<double> rows = RowsOfRank(200, 7, random);
  for (double& value : rows) value += 1e-3 * random.Normal();
  std::vector<double> moments = LowerMoments(rows);
  EXPECT_EQ(PivotedRank(moments, kDim, 1e-1), 7);
  moments = LowerMoments(rows);
  EXPECT_EQ(PivotedRank(moments, kDim, 1e-8), kDim);
}

}  // namespace
}  // namespace nestrec
