// The inner loops over vectors of floats: scores, combinations, codes. For whatever instruction set
// the processor has (Highway picks it at run time).
//
// Thread safety: pure functions on what they are given.
#pragma once

#include <cstdint>

#include "index/half.h"

namespace nestrec {

// sums[i] += Dot(query, row i) of index/score.h, bit for bit. Rows are `width` floats or halves,
// one after the other.
void AddCanonicalDots(const float* query, const float* rows, int64_t width, int64_t count,
                      double* sums);
void AddCanonicalDots(const float* query, const Half* rows, int64_t width, int64_t count,
                      double* sums);

// The same of the listed rows.
void AddCanonicalDotsAt(const float* query, const float* rows, int64_t width, const int32_t* listed,
                        int64_t count, double* sums);
void AddCanonicalDotsAt(const float* query, const Half* rows, int64_t width, const int32_t* listed,
                        int64_t count, double* sums);

// out[q * columns + c] += sum over r of factors[q * rows + r] * matrix[r * columns + c], in double,
// for `count` rows of factors.
void AddCombinations(const float* matrix, int64_t rows, int64_t columns, int64_t count,
                     const double* factors, double* out);

// One group of one item's coordinates in 4 bits and 4 more: value c is coordinate[c] * inverse[c],
// codes are of step 1/16 and centred, u = clamp(floor(16 * value + 128), 0, 255).
struct EncodedGroup {
  // Sums over the columns, in float: squares of the coordinates, of what 4 and 8 bits leave of them
  // and of the values that the 4 bits stand for, in steps.
  float square, error4, error8, value4;
};
// `coordinates`, `inverse` and `steps` (1 / inverse) are [width]; `high` and `low` are [row_bytes]
// of zeros, into which the codes go, or null. REQUIRES: width <= 2 * row_bytes.
EncodedGroup EncodeGroup(const float* coordinates, const float* inverse, const float* steps,
                         int64_t width, int64_t row_bytes, uint8_t* high, uint8_t* low);

}  // namespace nestrec
