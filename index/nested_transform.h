// A linear change of coordinates, level by level, that puts what matters to scores in front.
//
// Coordinates r = B (x - mean) and weights y = G^T z satisfy <z, x> = <z, mean> + <y, r> for every
// G and B with G B = I. Both are lower triangular by levels, so the first levels of r depend on the
// first levels of x alone, and a narrow query uses the leading blocks: one change of coordinates
// serves every width.
//
// How G is found (none of it matters to correctness, all of it to speed). C = R R^T is the Cholesky
// factor of the second moments of a sample of directions. Coordinates w = R^{-1} (x - mean) are
// what a level adds beyond what the levels before predict by linear regression, whitened. Inside a
// level, with K_l the second moments of sample queries' (R^T z)_l = U_l diag(s) U_l^T, the columns
// are turned by U_l and scaled by s^{1/4}: items and queries then have the same diagonal second
// moments, in falling order, which makes the Cauchy-Schwarz bound on what is not yet scanned as
// small as one diagonal can (balancing, as of linear systems: Moore, Principal component analysis
// in linear systems, 1981).
//
// Thread safety: immutable once fitted.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "base/nested_sizes.h"

namespace nestrec {

struct NestedTransform {
  // Beyond it the matrices would be larger than they are worth: G and B are identities.
  static constexpr int kLargestDim = 4096;

  NestedSizes sizes;
  std::vector<double> mean;    // [D]
  std::vector<float> decode;   // G, [D, D] row-major; empty: the identity
  std::vector<double> encode;  // B, [D, D] row-major; empty: the identity
  // |<z, x> - <z, mean> - <y, r>| <= error * |z| for every |x| <= 1 and every width, whatever is
  // computed as below in double precision: ||I - G B||_F as measured, and the rounding of the three
  // products (Higham, Accuracy and Stability of Numerical Algorithms, 3.5).
  double error = 0;

  // `rows` is [n, D] row-major double, centred by this function's caller; `out` is [n, D].
  void Encode(std::span<const double> rows, std::span<double> out) const;
  // y = G^T z for the first `levels` levels; z and y are [sizes.end(levels - 1)].
  void DecodeTransposed(std::span<const double> z, int levels, std::span<double> y) const;
};

// `directions` is [n, D] row-major double of vectors of norm 0 or 1; `queries`, [m, D] float32, are
// examples of what will be asked, and may be empty: then items stand in for them. kInternal: the
// linear algebra failed. May throw std::bad_alloc.
absl::StatusOr<NestedTransform> FitNestedTransform(const NestedSizes& sizes,
                                                   std::span<const double> directions,
                                                   std::span<const float> queries);

}  // namespace nestrec
