// A linear change of coordinates that puts what matters to scores in front.
//
// Coordinates r = B (x - mean) and weights y = G^T z satisfy <z, x> = <z, mean> + <y, r> for every
// G and B with G B = I.
//
// How G is found (none of it matters to correctness, all of it to speed). C = R R^T is the Cholesky
// factor of the second moments of a sample of directions; w = R^{-1} (x - mean) is white. With
// K = U diag(s) U^T the second moments of sample queries' R^T z, columns are turned by U and scaled
// by s^{1/4}, G = R U diag(s^{-1/4}): then items and queries have the same diagonal second moments,
// diag(s^{1/2}), in falling order, which makes the Cauchy-Schwarz bound on what is not yet scanned
// as small as a diagonal can (balancing, as of linear systems: Moore, Principal component analysis
// in linear systems, 1981).
//
// Thread safety: immutable once fitted.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace nestrec {

struct NestedTransform {
  // Beyond it the matrices would be larger than they are worth: G and B are identities.
  static constexpr int64_t kLargestDim = 4096;

  int64_t dim = 0;
  std::vector<double> mean;    // [dim]
  std::vector<float> decode;   // G, [dim, dim] row-major; empty: the identity
  std::vector<double> encode;  // B, [dim, dim] row-major; empty: the identity
  // |<z, x> - <z, mean> - <y, r>| <= error * |z| for every |x| <= 1, whatever is computed as below
  // in double precision: ||I - G B||_F as measured, and the rounding of the three products (Higham,
  // Accuracy and Stability of Numerical Algorithms, 3.5).
  double error = 0;

  // Both are [n, dim] row-major; rows come centred.
  void Encode(std::span<const double> rows, std::span<double> out) const;
  // y = G^T z of every row; both are [n, dim] row-major.
  void DecodeTransposed(std::span<const double> z, std::span<double> y) const;
};

// `directions` is [n, dim] row-major double of vectors of norm 0 or 1; `queries`, [m, dim] double,
// are directions of what will be asked, and may be empty: then items stand in for them. kInternal:
// the linear algebra failed. kResourceExhausted: no room for its work area (blas_room.h). May throw
// std::bad_alloc.
absl::StatusOr<NestedTransform> FitNestedTransform(int64_t dim, std::span<const double> directions,
                                                   std::span<const double> queries);

}  // namespace nestrec
