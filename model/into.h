// What a matrix product does with its sums: the last step of model/packed_rows.cc and
// model/row_products.cc, whatever vectors made the sums.
//
// Thread safety: pure functions.
#pragma once

#include <hwy/base.h>

#include <cstdint>

namespace nestrec {

enum class Into { kSet, kAdd, kSubtract };

// *y = bias[output] + sum, or adds the same to it, or subtracts the sum alone; no bias: 0.
template <Into kInto>
HWY_INLINE void Store(float sum, const float* bias, int64_t output, float* y) {
  const float shift = bias == nullptr ? 0.0f : bias[output];
  if constexpr (kInto == Into::kSet) {
    *y = shift + sum;
  } else if constexpr (kInto == Into::kAdd) {
    *y += shift + sum;
  } else {
    *y += shift - sum;
  }
}

}  // namespace nestrec
