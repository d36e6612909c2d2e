// Inner products in single precision of queries and rows that are cut into levels, for whatever
// instruction set the processor has (Highway picks it at run time). What their rounding is:
// index/float_scan.h.
//
// Thread safety: pure functions on what they are given.
#pragma once

#include <cstdint>
#include <span>

namespace nestrec {

// One level's part of a query, and of rows that lie one after the other.
struct LevelRows {
  const float* query;  // [width]
  const float* rows;   // [count, width]
  int64_t width;
};
// sums[i] = the inner product of the query and row i over all levels, in float and in whatever
// order is fast: within the usual bound of the exact one.
void FloatDots(std::span<const LevelRows> levels, int64_t count, float* sums);

// Levels of rows as LevelRows, for many queries: [query_count, dim] row-major, a level's part from
// column `begin` on.
struct LevelBlock {
  const float* rows;  // [count, width]
  int64_t begin;
  int64_t width;
};
// sums[q * sums_stride + i] = the inner product of query q and row i, as FloatDots'. A matrix
// product that reads rows once, whatever levels they are cut into.
void FloatProducts(std::span<const LevelBlock> levels, const float* queries, int64_t query_count,
                   int64_t dim, int64_t count, float* sums, int64_t sums_stride);

}  // namespace nestrec
