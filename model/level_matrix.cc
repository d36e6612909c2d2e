#include "model/level_matrix.h"

#include "model/row_products.h"

namespace nestrec {

LevelMatrix::LevelMatrix(int64_t rows, int64_t level_floats, const NestedSizes& sizes, int levels,
                         Layout layout, FloatArena& arena)
    : sizes_(&sizes), layout_(layout) {
  const int64_t dim = sizes.end(levels - 1);
  const bool many = layout == Layout::kManyRows;
  values_ = arena.Allocate(many ? level_floats : rows * dim);
  stride_ = dim;
  if (many) packed_ = PackedRows(rows, dim, arena.Allocate(PackedRows::Floats(rows, dim)));
}

void LevelMatrix::Start(int level) {
  width_ = sizes_->width(level);
  if (layout_ == Layout::kManyRows) {
    stride_ = width_;
  } else {
    begin_ = sizes_->begin(level);
  }
}

void LevelMatrix::Complete(int64_t rows) {
  rows_ = rows;
  if (layout_ == Layout::kManyRows) packed_.Extend(values_, stride_, rows, width_);
}

void LevelMatrix::Shrink(int64_t rows) {
  rows_ = rows;
  if (layout_ == Layout::kManyRows) packed_.Shrink(rows);
}

void LevelMatrix::Multiply(const LinearLevel& layer, int columns, Into into, float* y,
                           int64_t y_stride, int width) const {
  const float* bias = layer.bias.empty() ? nullptr : layer.bias.data();
  if (layout_ == Layout::kFewRows) {
    const RowProduct product = {.x = values_,
                                .x_stride = stride_,
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
