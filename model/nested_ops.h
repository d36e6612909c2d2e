// The differentiable operations of a nested network, on packed positions: P rows, one per real
// position of the batch's sequences, no padding.
//
// All but the layer norm have a hand-written backward pass; each is tested against autograd of the
// plain formula in double precision. Maths: arXiv 2409.16627.
//
// Errors are thrown (c10::Error), as libtorch does; callers go through base/guard.h. Thread safety:
// as libtorch's functions.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "base/nested_sizes.h"
#include "model/nested_products.h"
#include "model/nested_softmax.h"

namespace nestrec {

// y[:, level j] = x[:, :s_j] W_j^T + b_j.
// x [P, D], weight [RaggedWeights], bias [D] or undefined -> [P, D].
torch::Tensor NestedLinear(const torch::Tensor& x, const torch::Tensor& weight,
                           const torch::Tensor& bias, const NestedSizes& sizes,
                           const Arithmetic& arithmetic = {});

// y = x W^T + b for an x that gets no gradient: frozen features.
// x [P, F], weight [D, F], bias [D] -> [P, D].
torch::Tensor FrozenInputLinear(const torch::Tensor& x, const torch::Tensor& weight,
                                const torch::Tensor& bias, const Arithmetic& arithmetic = {});

// Every level normalised on its own (eps 1e-5). x [P, D], scale [D], shift [D] -> [P, D].
torch::Tensor NestedLayerNorm(const torch::Tensor& x, const torch::Tensor& scale,
                              const torch::Tensor& shift, const NestedSizes& sizes);

// h_t = lambda * h_{t-1} + u_t (complex, elementwise) over each run of rows; h before a run is 0.
// u_re, u_im [P, D]; lambda_re, lambda_im [D]; run_begins int64 [runs + 1], ascending from 0 to P
// -> h_re, h_im [P, D]. On the CPU one pass over the rows; elsewhere, or where
// `portable`, by doubling.
std::pair<torch::Tensor, torch::Tensor> LinearRecurrence(
    const torch::Tensor& u_re, const torch::Tensor& u_im, const torch::Tensor& lambda_re,
    const torch::Tensor& lambda_im, const std::vector<int64_t>& run_begins, bool portable = false);

// The same by libtorch's own operations, in log2 of the longest run rounds. Any device.
std::pair<torch::Tensor, torch::Tensor> LinearRecurrenceByDoubling(
    const torch::Tensor& u_re, const torch::Tensor& u_im, const torch::Tensor& lambda_re,
    const torch::Tensor& lambda_im, const std::vector<int64_t>& run_begins);

// What the nested softmax scores: item i's embedding is e_i = W f_i + b + r_i.
struct ItemTensors {
  torch::Tensor features;   // [N + 1, F], frozen; row 0 zeros
  torch::Tensor projector;  // W [D, F]
  torch::Tensor bias;       // b [D]
  torch::Tensor residual;   // r [N + 1, D], or undefined
  torch::Tensor offset;     // [N + 1], or undefined: added to the logits
  // The features in bfloat16, or undefined; only a loss in that precision looks at them.
  torch::Tensor half_features;
};

// [N + 1, D].
torch::Tensor ItemEmbeddings(const ItemTensors& items);

// The loss of nested_softmax.h. On the CPU fused, with the gradients, in one pass; elsewhere, or
// where `portable`, by libtorch's own operations, in float32.
//
// Thread safety: one thread at a time.
class NestedCrossEntropy {
 public:
  explicit NestedCrossEntropy(const NestedSoftmaxOptions& options, bool portable = false);

  // z [P, D], labels int64 [P] on the CPU, P > 0 -> scalar.
  torch::Tensor operator()(const torch::Tensor& z, const ItemTensors& items,
                           const torch::Tensor& labels);
  // The same from a table of embeddings, items [N + 1, D]; labels beside z. Any device.
  torch::Tensor FromTable(const torch::Tensor& z, const torch::Tensor& items,
                          const torch::Tensor& labels, const torch::Tensor& offset = {}) const;
  // Multiplications and additions of the last call's matrix products, gradients included.
  int64_t flops() const { return flops_; }

 private:
  friend struct FusedCrossEntropyFunction;
  NestedSoftmaxOptions options_;
  bool portable_;
  NestedSoftmax<float> single_;
  NestedSoftmax<double> double_;
  int64_t flops_ = 0;
};

}  // namespace nestrec
