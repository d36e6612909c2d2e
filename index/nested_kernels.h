// The inner loops of scans over codes, for whatever instruction set the processor has (Highway
// picks it at run time): exact integer sums, and plain float arithmetic whose rounding
// index/nested_query.h accounts for.
//
// Code rows: [rows, row_bytes], row_bytes a multiple of kRowAlignment. Byte j of a nibble row
// holds column j in its low half and column j + row_bytes in its high half; a byte row holds one
// value up to 127 a byte.
//
// Thread safety: pure functions on what they are given.
#pragma once

#include <cstdint>

namespace nestrec {

constexpr int64_t kRowAlignment = 16;

struct CodeRows {
  const uint8_t* data;
  int64_t row_bytes;
};

// sum[i] += scale * float(2 * <codes of the row, weights> - offset) for nibble rows, and
// scale * float(<codes, low>) for byte rows.
struct RowWeights {
  const int8_t* low;   // [row_bytes]
  const int8_t* high;  // [row_bytes]; byte rows: not looked at
  int32_t offset;
  float scale;
};

// Rows begin .. begin + count - 1. `sums` is [count].
void AddNibbleDots(const CodeRows& rows, int64_t begin, int64_t count, const RowWeights& weights,
                   float* sums);
void AddByteDots(const CodeRows& rows, int64_t begin, int64_t count, const RowWeights& weights,
                 float* sums);
// The listed rows.
void AddNibbleDotsAt(const CodeRows& rows, const int32_t* listed, int64_t count,
                     const RowWeights& weights, float* sums);
void AddByteDotsAt(const CodeRows& rows, const int32_t* listed, int64_t count,
                   const RowWeights& weights, float* sums);

// bounds[i] = scales[i] * (sums[i] + slacks[i]), in float.
void MultiplyBounds(const float* scales, const float* sums, const float* slacks, int64_t count,
                    float* bounds);
// The largest value; infinity where one is NaN.
float Highest(const float* values, int64_t count);
// Writes first + i for every value that is not below `threshold` (NaN is not) to `selected`, in
// order, and returns how many. `selected` has room for count + 64.
int64_t SelectNotBelow(const float* values, int64_t count, float threshold, int32_t first,
                       int32_t* selected);

// "AVX3_DL", for reports.
const char* NestedKernelTarget();

}  // namespace nestrec
