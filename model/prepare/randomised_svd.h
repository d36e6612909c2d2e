// The leading right singular vectors of a sparse matrix, by random projection with power
// iterations: algorithms 4.4 and 5.1 of Halko, Martinsson and Tropp, "Finding structure with
// randomness", SIAM Review 53 (2011).
//
// Memory: about 4 * (width + 16) * (rows + columns) bytes beside the matrix. Uses OpenBLAS on one
// thread: the same seed gives the same result on machines of one kind, however many cores they
// have.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace nestrec {

// Compressed rows: row r has values[row_begin[r] .. row_begin[r+1]) at the columns of the same
// places.
struct SparseMatrix {
  int64_t rows = 0;
  int64_t columns = 0;
  std::vector<int64_t> row_begin{0};  // [rows + 1]
  std::vector<int32_t> column;
  std::vector<float> value;
};

struct RightSingularVectors {
  int64_t rank = 0;  // how many were found: at most width, fewer when the matrix has fewer
  std::vector<float>
      vectors;  // [columns, width] row-major, orthonormal columns; those from `rank` on are zero
  std::vector<float> values;  // [width] singular values, falling; zero from `rank` on
};

// Of every vector the entry of largest magnitude is positive, so that the sign is no accident.
// kInvalidArgument for a width below 1 or an empty matrix, kResourceExhausted, kInternal when
// LAPACK fails.
absl::StatusOr<RightSingularVectors> RandomisedSvd(const SparseMatrix& matrix, int64_t width,
                                                   int power_iterations, uint64_t seed);

}  // namespace nestrec
