// The encoder's layer norm: every level is normalised on its own.
//
// Thread safety: a pure function.
#pragma once

#include <cmath>
#include <span>

namespace nestrec {

// out = (x - mean) / sqrt(variance + 1e-5) * scale + shift over one level's columns, all [w_j].
inline void NormalizeLevel(const float* x, std::span<const float> scale,
                           std::span<const float> shift, float* out) {
  constexpr float kEpsilon = 1e-5f;
  const int width = static_cast<int>(scale.size());
  double sum = 0;
  for (int c = 0; c < width; ++c) sum += x[c];
  const float mean = static_cast<float>(sum / width);
  double squares = 0;
  for (int c = 0; c < width; ++c) {
    const float centred = x[c] - mean;
    squares += static_cast<double>(centred) * centred;
  }
  const float inverse = 1.0f / std::sqrt(static_cast<float>(squares / width) + kEpsilon);
  for (int c = 0; c < width; ++c) out[c] = (x[c] - mean) * inverse * scale[c] + shift[c];
}

}  // namespace nestrec
