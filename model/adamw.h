// One AdamW update of one parameter (Loshchilov & Hutter 2019, algorithm 2), in a single pass over
// memory, which is all that it costs.
//
// Runs on OpenMP's threads; the result does not depend on how many. Thread safety: plain function.
#pragma once

#include <cstdint>

namespace nestrec {

struct AdamWFactors {
  float gradient_scale;  // clipping: gradients are multiplied by it first
  float beta1;
  float beta2;
  float decay;      // 1 - lr * weight decay
  float step_size;  // lr / (1 - beta1^t)
  float root_bias;  // sqrt(1 - beta2^t)
  float epsilon;
};

// All [count]: m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
// w = decay w - step_size m / (sqrt(v) / root_bias + epsilon).
void AdamWUpdate(const AdamWFactors& factors, int64_t count, const float* gradient, float* m,
                 float* v, float* weight);

}  // namespace nestrec
