// Products of many rows with a weight matrix: y = x W^T, the work of an encoder on the positions of
// its histories. Made for tens of rows and more; model/row_products.h is for a few.
//
// Every value is one sum in the order of the columns. So a row's result has the same bits whatever
// other rows it is computed with and wherever it stands among them, which a general matrix product
// does not promise; and a nested layer's narrow levels have the same bits whatever levels follow.
//
// Thread safety: a PackedRows is a view; MultiplyPacked is pure and runs on the calling thread.
#pragma once

#include <cstdint>

namespace nestrec {

// Rows of floats, transposed in panels of kPanel rows: laid out once, multiplied with several
// matrices, and made wider as levels are computed.
class PackedRows {
 public:
  static constexpr int64_t kPanel = 48;  // three of the widest vectors

  // Has no columns yet; room for `capacity` of them in `memory`, Floats(rows, capacity) of them,
  // which outlives it. What is not reached is not touched.
  PackedRows(int64_t rows, int64_t capacity, float* memory)
      : rows_(rows), capacity_(capacity), values_(memory) {}
  PackedRows() = default;

  static int64_t Floats(int64_t rows, int64_t capacity) {
    return (rows + kPanel - 1) / kPanel * kPanel * capacity;
  }

  // Adds x [rows, columns], rows `stride` apart, to the right. REQUIRES: between Clears rows never
  // grow; rows and all columns stay within the constructor's.
  void Extend(const float* x, int64_t stride, int64_t rows, int64_t columns);
  // Leaves the first `rows` rows. REQUIRES: rows <= rows().
  void Shrink(int64_t rows) { rows_ = rows; }
  // No columns, as at first.
  void Clear() { columns_ = 0; }

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  // kPanel floats: column `column` of rows [kPanel * panel, ...); zeros beyond the last row.
  const float* at(int64_t panel, int64_t column) const {
    return values_ + (panel * capacity_ + column) * kPanel;
  }

 private:
  int64_t rows_ = 0;
  int64_t columns_ = 0;
  int64_t capacity_ = 0;
  float* values_ = nullptr;  // [panels, capacity, kPanel]
};

struct PackedProduct {
  const PackedRows* x;
  const float* weight;  // [outputs, columns], rows `weight_stride` apart
  int64_t weight_stride;
  int64_t columns;    // REQUIRES: <= x->columns()
  const float* bias;  // [outputs], or null
  float* y;           // [x->rows(), outputs], rows `y_stride` apart
  int64_t y_stride;
  int64_t outputs;
};

// y = x W^T + bias.
void MultiplyPacked(const PackedProduct& product);
// y += x W^T + bias, and y -= x W^T - bias.
void AddPacked(const PackedProduct& product);
void SubtractPacked(const PackedProduct& product);

}  // namespace nestrec
