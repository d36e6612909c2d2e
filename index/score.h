// The canonical score of an item for a query: the one number that results are ranked by and that
// clients see, whatever index found the item.
//
//   score(q, e; s) = float(sum over levels j of s, narrow to wide, of Dot(q[level j], e[level j]))
//
// Sums are kept in double. Dot has eight lanes, element i goes to lane i mod 8, and the lanes are
// added as ((0+4)+(2+6)) + ((1+5)+(3+7)). So a score depends on the two vectors alone: not on the
// batch, the index, the instruction set (the product of two floats is exact in double, so a fused
// multiply-add rounds the same) or on how wide the model is. It is within one float rounding of the
// exact inner product, short of cancellation.
//
// Where vectors are stored in float16 (index/level_vectors.h), e is what is stored: the vector
// after its rounding. Rounding belongs to the items, not to the score, so that an index over them
// is as exact as one over float32.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <span>

#include "index/level_vectors.h"

namespace nestrec {

// REQUIRES: a.size() == b.size().
double Dot(std::span<const float> a, std::span<const float> b);

// Rounds to float; a sum beyond float's range becomes its largest finite value, -0 becomes +0.
float ScoreFromSum(double sum);

// `query` holds sizes.end(levels - 1) floats. REQUIRES: 0 <= row < items.rows, 1 <= levels.
float CanonicalScore(std::span<const float> query, const LevelVectors& items, int levels,
                     int64_t row);

// The same of a vector that is in one piece. REQUIRES: `vector` has at least sizes.end(levels - 1)
// floats.
float CanonicalScore(std::span<const float> query, std::span<const float> vector,
                     const NestedSizes& sizes, int levels);

}  // namespace nestrec
