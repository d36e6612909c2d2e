// A view on item vectors that are stored level by level, as checkpoints hold them: a narrow width
// is the first levels, so one copy of the vectors answers at every width.
//
// Shapes: levels[j] is [rows, sizes.width(j)] row-major float32, or halves[j] the same in float16,
// for all levels alike; row r of level j begins at r * width(j). Row 0 is the padding item, which
// no search returns; items are the rows 1..rows-1. Whatever is computed of halves is computed of
// the floats that they are, which no step rounds again.
//
// Ownership: a view; whoever makes one keeps the memory alive.
// Thread safety: immutable once filled.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "base/nested_sizes.h"
#include "index/half.h"

namespace nestrec {

// What item vectors are stored as.
enum class ItemStorage { kFloat32, kFloat16 };

struct LevelVectors {
  NestedSizes sizes;
  int64_t rows = 0;                                // items + 1
  std::vector<std::span<const float>> levels;      // [rows, width(j)] each
  std::vector<std::span<const Half>> halves = {};  // in place of `levels`, which are none then

  int64_t items() const { return rows - 1; }
  bool half() const { return !halves.empty(); }
  int64_t value_bytes() const { return half() ? sizeof(Half) : sizeof(float); }
  // REQUIRES: !half().
  std::span<const float> row(int level, int64_t row) const {
    const size_t width = static_cast<size_t>(sizes.width(level));
    return levels[level].subspan(static_cast<size_t>(row) * width, width);
  }
  // A level of a row as floats, of either kind. `out` is [width(level)].
  void CopyRow(int level, int64_t row, std::span<float> out) const;
  // The first `count` levels of a row, one after the other: [sizes.end(count - 1)].
  void CopyRows(int count, int64_t row, std::span<float> out) const;
  // The first `count` levels alone. REQUIRES: 1 <= count <= sizes.levels().
  LevelVectors Prefix(int count) const;
  // kInvalidArgument unless there is at least one item, no more items than an int32 numbers, and
  // every level has rows * width values, all of them floats or all of them halves.
  absl::Status Validate() const;
};

// sums[i] = the sum over the first `levels` levels, narrow to wide, of Dot(query's part, the part
// of row begin + i), index/score.h: what a canonical score is rounded from. By the processor's
// widest instructions, bit for bit. `query` has at least sizes.end(levels - 1) floats.
void LevelDots(std::span<const float> query, const LevelVectors& vectors, int levels, int64_t begin,
               int64_t count, double* sums);
// The same of rows first + listed[i].
void LevelDotsAt(std::span<const float> query, const LevelVectors& vectors, int levels,
                 int64_t first, std::span<const int32_t> listed, double* sums);

}  // namespace nestrec
