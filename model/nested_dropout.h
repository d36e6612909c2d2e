// Dropout that spares narrow sizes: a column of level j is set to 0 with probability
// rate * (s_j / D)^power, and divided by the probability of being kept else.
//
// One rate for all columns (power 0) is the published model's. A narrow size has few columns to
// spare and little to overfit with, the widest has both; so a positive power gives each size about
// the dropout that a model of its own would want. Not from the paper; docs/results.md measures it.
//
// Shapes: x is [P, D] or [P, s] for one of the sizes. Masks come from libtorch's generator of x's
// device. Thread safety: const methods may run in parallel as far as that generator allows.
#pragma once

#include <torch/torch.h>

#include "base/nested_sizes.h"

namespace nestrec {

class NestedDropout {
 public:
  // Drops nothing.
  NestedDropout() = default;
  // REQUIRES: 0 <= rate < 1, 0 <= power.
  NestedDropout(const NestedSizes& sizes, double rate, double power, torch::Device device);

  torch::Tensor operator()(const torch::Tensor& x) const;
  double rate() const { return rate_; }

 private:
  double rate_ = 0;
  torch::Tensor kept_;  // [D]: the probability of being kept; undefined where it is 1 - rate
};

}  // namespace nestrec
