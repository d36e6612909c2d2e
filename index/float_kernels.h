// Inner products in single precision of a query and rows that are cut into levels, for whatever
// instruction set the processor has (Highway picks it at run time). What their rounding is:
// index/float_scan.h. For many queries: index/float_products.h.
//
// Thread safety: pure functions on what they are given.
#pragma once

#include <cstdint>
#include <span>

#include "index/half.h"

namespace nestrec {

// One level's part of a query, and of rows that lie one after the other. T is float or Half.
template <class T>
struct LevelRows {
  const float* query;  // [width]
  const T* rows;       // [count, width]
  int64_t width;
};
// sums[i] = the inner product of the query and row i over all levels, in float and in whatever
// order is fast: within the usual bound of the exact one.
void FloatDots(std::span<const LevelRows<float>> levels, int64_t count, float* sums);
void FloatDots(std::span<const LevelRows<Half>> levels, int64_t count, float* sums);

// out[i] = halves[i], exactly. REQUIRES: they are finite.
void FloatsOfHalves(std::span<const Half> halves, float* out);

}  // namespace nestrec
