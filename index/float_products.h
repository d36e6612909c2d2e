// Inner products in single precision of many queries and rows that are cut into levels, as a matrix
// product that reads rows once: only those that reach a query's floor are written down. For
// whatever instruction set the processor has (Highway picks it at run time). What the rounding is:
// index/float_scan.h.
//
//   const QueryPanel panel(queries);
//   const int64_t found = FloatProducts<float>(levels, panel, floors, count, hits);
//
// Thread safety: pure functions on what they are given; a panel is immutable.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "index/aligned_array.h"
#include "index/half.h"

namespace nestrec {

// Queries side by side, one column of all after the other, so that a row's value meets many of them
// at once. They may be of different widths: one that is narrower ends with zeros.
class QueryPanel {
 public:
  // REQUIRES: at least one, widest first.
  explicit QueryPanel(std::span<const std::span<const float>> queries);

  int64_t count() const { return static_cast<int64_t>(widths_.size()); }
  // Queries with those that fill up whole vectors.
  int64_t stride() const { return stride_; }
  // Of a query, 0 beyond count().
  int64_t width(int64_t query) const {
    return query < count() ? widths_[static_cast<size_t>(query)] : 0;
  }
  const float* values() const { return values_.data(); }  // [width(0), stride()]

 private:
  int64_t stride_;
  std::vector<int64_t> widths_;
  AlignedArray<float> values_;
};

// One level of rows that lie one after the other. T is float or Half.
template <class T>
struct LevelBlock {
  const T* rows;  // [count, width]
  int64_t begin;  // the level's first column
  int64_t width;
};

struct ProductHit {
  float sum;
  int32_t row;
  int32_t query;
};

// Rows that a call should have, or a multiple of it: others are done one by one.
inline constexpr int64_t kProductRows = 12;

// Writes down every row and query whose inner product over the query's width is at least the
// query's floor, rows in ascending order within a query. Returns how many. Levels are all of the
// widest query's, narrow to wide. `floors` is [panel.count()], `hits` has room for count *
// panel.count().
template <class T>
int64_t FloatProducts(std::span<const LevelBlock<T>> levels, const QueryPanel& panel,
                      std::span<const float> floors, int64_t count, ProductHit* hits);

}  // namespace nestrec
