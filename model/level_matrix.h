// A matrix [rows, dim] of an encoder's call: filled level by level, narrow to wide, and multiplied
// with the weights of the levels. Rows that end at a narrow level touch no memory of wider ones.
//
// Row-major float32. Neither its values nor what its products give depend, in any bit, on the other
// rows.
//
// Thread safety: const methods may run in parallel.
#pragma once

#include <cstdint>

#include "base/nested_sizes.h"
#include "model/checkpoint.h"
#include "model/float_arena.h"
#include "model/packed_rows.h"

namespace nestrec {

enum class Into { kSet, kAdd, kSubtract };

class LevelMatrix {
 public:
  // Which products it is laid out for: those of a history's last position alone
  // (model/row_products.h), or of all of its positions (model/packed_rows.h). It says so and not
  // the number of rows, because the two differ in their last bits.
  enum class Layout { kFewRows, kManyRows };

  // For `rows` rows of up to `levels` levels, of which no level has more than `level_floats` floats
  // in the rows that reach it. `sizes` and `arena` outlive the matrix.
  LevelMatrix(int64_t rows, int64_t level_floats, const NestedSizes& sizes, int levels,
              Layout layout, FloatArena& arena);

  // From now on at() are the columns of this level. REQUIRES: levels in their order, from 0 on.
  void Start(int level);
  // [w_j] of a row; rows lie stride() apart. Of kManyRows only until the next Start.
  float* at(int64_t row) { return values_ + row * stride_ + begin_; }
  const float* at(int64_t row) const { return values_ + row * stride_ + begin_; }
  int64_t stride() const { return stride_; }

  // The level's columns of the first `rows` rows are filled: products are of these rows. REQUIRES:
  // rows never grow.
  void Complete(int64_t rows);
  // Products are of the first `rows` rows.
  void Shrink(int64_t rows);

  // y (=, +=, -=) x[:, :columns] W^T, with the bias b for the first two and -b for the last,
  // [rows, width], rows `y_stride` apart. REQUIRES: these columns are complete; of kFewRows, W has
  // no others.
  void Multiply(const LinearLevel& layer, int columns, Into into, float* y, int64_t y_stride,
                int width) const;

 private:
  const NestedSizes* sizes_;
  const Layout layout_;
  int64_t rows_ = 0;
  int64_t begin_ = 0;   // of the level in a row of values_
  int64_t stride_ = 0;  // of rows of values_
  int width_ = 0;       // of the level
  float* values_;       // kFewRows: [rows, dim]; kManyRows: the level's [rows, w_j]
  PackedRows packed_;   // kManyRows: all complete columns
};

// Room for the floats of one level at a time.
class Scratch {
 public:
  explicit Scratch(FloatArena& arena) : arena_(&arena) {}

  // Its contents are whatever was there; those of the last Room are gone.
  float* Room(int64_t floats) {
    if (floats > size_) {
      values_ = arena_->Allocate(floats);
      size_ = floats;
    }
    return values_;
  }

 private:
  FloatArena* arena_;
  int64_t size_ = 0;
  float* values_ = nullptr;
};

}  // namespace nestrec
