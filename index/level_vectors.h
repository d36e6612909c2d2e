// A view on item vectors that are stored level by level, as checkpoints hold them: a narrow width
// is the first levels, so one copy of the vectors answers at every width.
//
// Shapes: levels[j] is [rows, sizes.width(j)] row-major float32; row r of level j begins at r *
// width(j). Row 0 is the padding item, which no search returns; items are the rows 1..rows-1.
//
// Ownership: a view; whoever makes one keeps the memory alive.
// Thread safety: immutable once filled.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "base/nested_sizes.h"

namespace nestrec {

struct LevelVectors {
  NestedSizes sizes;
  int64_t rows = 0;                            // items + 1
  std::vector<std::span<const float>> levels;  // [rows, width(j)] each

  int64_t items() const { return rows - 1; }
  std::span<const float> row(int level, int64_t row) const {
    const size_t width = static_cast<size_t>(sizes.width(level));
    return levels[level].subspan(static_cast<size_t>(row) * width, width);
  }
  // kInvalidArgument unless there is at least one item, no more items than an int32 numbers, and
  // every level has rows * width floats.
  absl::Status Validate() const;
};

}  // namespace nestrec
