// Second moments of rows, and what they tell: eigenvectors and rank. In double precision, by BLAS
// and LAPACK, whose threads they use. Matrices are row-major.
//
// Thread safety: pure functions. Callers ask CheckRoomForBlas first (index/blas_room.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace nestrec {

// moments += scale * sum over the rows of r r^T, in the lower triangle alone. `rows` is [n, dim],
// `moments` [dim, dim].
void AddSecondMoments(std::span<const double> rows, int64_t dim, double scale,
                      std::span<double> moments);
// Copies the lower triangle to the upper one.
void MirrorLower(int64_t dim, std::span<double> matrix);

// Of a symmetric matrix, whose lower triangle it reads and which it overwrites: eigenvalues,
// rising, and in row i the i-th eigenvector. kInternal: LAPACK failed.
absl::StatusOr<std::vector<double>> Eigen(std::vector<double>& matrix, int dim);

// How many columns of a positive semidefinite matrix, of which it overwrites the lower triangle,
// span the others but for `left` of each one's square: the steps of a Cholesky factorisation with
// pivots until all that is left of the diagonal is at most `left` (Higham, Accuracy and Stability
// of Numerical Algorithms, 10.3). At least the number of eigenvalues above dim * left.
int PivotedRank(std::vector<double>& matrix, int dim, double left);

}  // namespace nestrec
