// A matrix [rows, dim] of an encoder's call: filled level by level, narrow to wide, and multiplied
// with the weights of the levels.
//
// Row-major float32. Neither its values nor what its products give depend, in any bit, on the other
// rows.
//
// Thread safety: const methods may run in parallel.
#pragma once

#include <cstdint>
#include <memory>

#include "model/checkpoint.h"
#include "model/packed_rows.h"

namespace nestrec {

enum class Into { kSet, kAdd, kSubtract };

class LevelMatrix {
 public:
  // Which products it is laid out for: those of a history's last position alone
  // (model/row_products.h), or of all of its positions (model/packed_rows.h). It says so and not
  // the number of rows, because the two differ in their last bits.
  enum class Layout { kFewRows, kManyRows };

  LevelMatrix(int64_t rows, int64_t dim, Layout layout);

  float* row(int64_t r) { return values_.get() + r * dim_; }
  const float* row(int64_t r) const { return values_.get() + r * dim_; }

  // Columns up to `to` of the first `rows` rows are filled: the next products are of these.
  // REQUIRES: rows never grow, `to` never falls.
  void Complete(int64_t rows, int to);

  // y (=, +=, -=) x[:, :columns] W^T, with the bias b for the first two and -b for the last,
  // [rows, width], rows `y_stride` apart. REQUIRES: these columns are complete; of kFewRows, W has
  // no others.
  void Multiply(const LinearLevel& layer, int columns, Into into, float* y, int64_t y_stride,
                int width) const;

 private:
  int64_t rows_ = 0;
  const int64_t dim_;
  const Layout layout_;
  std::unique_ptr<float[]> values_;
  PackedRows packed_;  // kManyRows: the complete columns
};

}  // namespace nestrec
