#include "model/level_matrix.h"

#include "model/row_products.h"

namespace nestrec {

LevelMatrix::LevelMatrix(int64_t rows, int64_t dim, Layout layout)
    : dim_(dim),
      layout_(layout),
      values_(std::make_unique_for_overwrite<float[]>(static_cast<size_t>(rows * dim))),
      packed_(layout == Layout::kManyRows ? PackedRows(rows, dim) : PackedRows()) {}

void LevelMatrix::Complete(int64_t rows, int to) {
  rows_ = rows;
  if (layout_ == Layout::kManyRows) packed_.Extend(row(0), dim_, rows, to);
}

void LevelMatrix::Multiply(const LinearLevel& layer, int columns, Into into, float* y,
                           int64_t y_stride, int width) const {
  const float* bias = layer.bias.empty() ? nullptr : layer.bias.data();
  if (layout_ == Layout::kFewRows) {
    const RowProduct product = {.x = row(0),
                                .x_stride = dim_,
                                .weight = layer.weight.data(),
                                .bias = bias,
                                .y = y,
                                .y_stride = y_stride,
                                .rows = rows_,
                                .outputs = width,
                                .columns = columns};
    switch (into) {
      case Into::kSet:
        return MultiplyRows(product);
      case Into::kAdd:
        return AddProductRows(product);
      case Into::kSubtract:
        return SubtractProductRows(product);
    }
  }
  const PackedProduct product = {.x = &packed_,
                                 .weight = layer.weight.data(),
                                 .weight_stride = static_cast<int64_t>(layer.weight.size()) / width,
                                 .columns = columns,
                                 .bias = bias,
                                 .y = y,
                                 .y_stride = y_stride,
                                 .outputs = width};
  switch (into) {
    case Into::kSet:
      return MultiplyPacked(product);
    case Into::kAdd:
      return AddPacked(product);
    case Into::kSubtract:
      return SubtractPacked(product);
  }
}

}  // namespace nestrec
