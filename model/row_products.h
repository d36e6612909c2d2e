// Products of a few rows with a weight matrix: y = x W^T, the work of a recurrent step. Made for
// one row, where W's bytes are all that counts, and good up to some hundred.
//
// Every value is one dot product, summed in an order that depends on `columns` and on the
// processor's vector width alone. So a row's result has the same bits whatever other rows it is
// computed with, and a nested layer's narrow levels have the same bits whatever levels follow.
//
// Thread safety: pure functions; they run on the calling thread.
#pragma once

#include <cstdint>

namespace nestrec {

struct RowProduct {
  const float* x;  // [rows, columns], rows `x_stride` apart
  int64_t x_stride;
  const float* weight;  // [outputs, columns], contiguous
  const float* bias;    // [outputs], or null
  float* y;             // [rows, outputs], rows `y_stride` apart; must not overlap x
  int64_t y_stride;
  int64_t rows;
  int64_t outputs;
  int64_t columns;
};

// y = x W^T + bias.
void MultiplyRows(const RowProduct& product);
// y += x W^T + bias, and y -= x W^T - bias.
void AddProductRows(const RowProduct& product);
void SubtractProductRows(const RowProduct& product);

}  // namespace nestrec
