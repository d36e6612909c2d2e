// The inner loops of the nested index, for whatever instruction set the processor has (Highway
// picks it at run time). All are exact integer sums, plain float arithmetic whose rounding
// nested_bounds.h accounts for, or the canonical score's own operations in its own order.
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
// Writes first + i for every value that is not below `threshold` (NaN is not) to `selected`, in
// order, and returns how many. `selected` has room for count + 64.
int64_t SelectNotBelow(const float* values, int64_t count, float threshold, int32_t first,
                       int32_t* selected);

// sums[i] += Dot(query, row i) of index/score.h, bit for bit. Rows are `width` floats, one after
// the other.
void AddCanonicalDots(const float* query, const float* rows, int64_t width, int64_t count,
                      double* sums);

// out[c] += sum over r of matrix[r * stride + c] * factors[r], c < columns, in double.
void AddCombination(const float* matrix, int64_t stride, int64_t rows, int64_t columns,
                    const double* factors, double* out);

// One group of one item's coordinates in 4 bits and 4 more: value c is coordinate[c] * inverse[c],
// codes are of step 1/16 and centred, u = clamp(floor(16 * value + 128), 0, 255).
struct EncodedGroup {
  // Sums over the columns, in float: squares of the coordinates, of what 4 and 8 bits leave of them
  // and of the values that the 4 bits stand for, in steps.
  float square, error4, error8, value4;
};
// `coordinates`, `inverse` and `steps` (1 / inverse) are [width]; `high` and `low` are
// [row_bytes], of which the kernel fills the nibbles of `width` columns. REQUIRES: width <= 2 *
// row_bytes.
EncodedGroup EncodeGroup(const float* coordinates, const float* inverse, const float* steps,
                         int64_t width, int64_t row_bytes, uint8_t* high, uint8_t* low);

// "AVX3_DL", for reports.
const char* NestedKernelTarget();

}  // namespace nestrec
