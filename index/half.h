// IEEE 754 binary16 numbers ("half", float16) as bits, where no vector instructions are at hand;
// whole rows: FloatsOfHalves of index/float_kernels.h.
//
// Every half is a float, exactly. The other way rounds to the nearest half, ties to the even one;
// from 65520 on to infinity. Below 2^-14 halves are multiples of 2^-24.
//
// Thread safety: pure functions.
#pragma once

#include <bit>
#include <cstdint>

namespace nestrec {

using Half = uint16_t;

inline constexpr float kLargestHalf = 65504.0f;

inline float FloatOfHalf(Half half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t magnitude = half & 0x7fff;
  if (magnitude < 0x400) {  // a multiple of 2^-24
    return std::bit_cast<float>(sign |
                                std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-24f));
  }
  const uint32_t bias = magnitude < 0x7c00 ? 127 - 15 : 255 - 31;
  return std::bit_cast<float>(sign | ((magnitude << 13) + (bias << 23)));
}

inline Half HalfOfFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  uint32_t half = 0;
  if (magnitude > 0x7f800000) {
    half = 0x7e00;  // not a number
  } else if (magnitude >= 0x477ff000) {
    half = 0x7c00;  // infinity
  } else if (magnitude < 0x38800000) {
    // The last bit of a float from 1/2 on is 2^-24: the addition rounds.
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000;
  } else {
    const uint32_t odd = magnitude >> 13 & 1;
    half = (magnitude - (uint32_t{127 - 15} << 23) + 0xfff + odd) >> 13;
  }
  return static_cast<Half>(sign | half);
}

}  // namespace nestrec
