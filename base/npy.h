// NumPy .npy files (format versions 1.0 to 3.0,
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html): two-dimensional
// little-endian float32 in C order, which is what feature files are.
//
// Thread safety: functions are pure; a matrix is immutable once read.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace nestrec {

// A dense row-major matrix, [rows, columns] float32.
struct Matrix {
  int64_t rows = 0;
  int64_t columns = 0;
  std::vector<float> values;  // rows * columns

  std::span<const float> row(int64_t r) const {
    return {values.data() + r * columns, static_cast<size_t>(columns)};
  }
  std::span<float> row(int64_t r) {
    return {values.data() + r * columns, static_cast<size_t>(columns)};
  }
};

// kInvalidArgument, naming the file and what is wrong with it (magic, version, dtype, order, shape,
// length), for anything but a complete 2-D '<f4' C-order array; kInvalidArgument with row and
// column for a value that is NaN or infinite.
absl::StatusOr<Matrix> ReadNpy(const std::string& path);

absl::Status WriteNpy(const std::string& path, const Matrix& matrix);

// What such a file begins with; rows * columns floats follow. For matrices that are written as they
// are made.
std::string NpyHeader(int64_t rows, int64_t columns);

}  // namespace nestrec
