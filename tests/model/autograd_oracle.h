// Hand-written backward passes against autograd of the plain formula, in double precision.
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/nested_products.h"

namespace nestrec {

inline torch::Tensor Leaf(std::vector<int64_t> shape) {
  return torch::randn(shape, torch::kFloat64).requires_grad_(true);
}

inline void ExpectSame(const torch::Tensor& actual, const torch::Tensor& expected,
                       const std::string& what, double tolerance = 1e-10) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  if (actual.numel() == 0) return;
  EXPECT_LE((actual - expected).abs().max().item<double>(),
            tolerance * (1 + expected.abs().max().item<double>()))
      << what;
}

// Runs `actual` and `expected` on the same leaves and compares value and all gradients of a random
// projection of it. A leaf that the plain formula does not use has the gradient zero.
template <typename Actual, typename Expected>
void CompareWithAutograd(const std::vector<torch::Tensor>& leaves, Actual&& actual,
                         Expected&& expected) {
  const torch::Tensor a = actual();
  const torch::Tensor b = expected();
  ExpectSame(a, b, "value");
  const torch::Tensor direction = torch::randn_like(b);
  const auto grads_a = torch::autograd::grad({(a * direction).sum()}, leaves);
  const auto grads_b = torch::autograd::grad({(b * direction).sum()}, leaves, {}, {}, false, true);
  for (size_t i = 0; i < leaves.size(); ++i) {
    const torch::Tensor plain = grads_b[i].defined() ? grads_b[i] : torch::zeros_like(leaves[i]);
    ExpectSame(grads_a[i], plain, absl::StrCat("gradient ", i));
  }
}

// The dense [D, D] matrix of a ragged weight.
inline torch::Tensor Dense(const torch::Tensor& ragged, const NestedSizes& sizes) {
  std::vector<torch::Tensor> rows;
  for (int level = 0; level < sizes.levels(); ++level) {
    const torch::Tensor w = RaggedLevel(ragged, sizes, level);
    rows.push_back(torch::constant_pad_nd(w, {0, sizes.max_dim() - w.size(1)}));
  }
  return torch::cat(rows, 0);
}

}  // namespace nestrec
