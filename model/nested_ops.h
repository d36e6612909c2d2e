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

namespace nestrec {

// Number of weights of a NestedLinear: sum over levels of w_j * s_j.
int64_t RaggedWeights(const NestedSizes& sizes);

// Level `level` of a ragged weight as a view [w_j, s_j]. `weight` is [RaggedWeights(sizes)]: the
// levels' matrices one after the other, row-major, no zeros stored.
torch::Tensor RaggedLevel(const torch::Tensor& weight, const NestedSizes& sizes, int level);

// y[:, level j] = x[:, :s_j] W_j^T + b_j.
// x [P, D], weight [RaggedWeights], bias [D] or undefined -> [P, D].
torch::Tensor NestedLinear(const torch::Tensor& x, const torch::Tensor& weight,
                           const torch::Tensor& bias, const NestedSizes& sizes);

// Every level normalised on its own (eps 1e-5). x [P, D], scale [D], shift [D] -> [P, D].
torch::Tensor NestedLayerNorm(const torch::Tensor& x, const torch::Tensor& scale,
                              const torch::Tensor& shift, const NestedSizes& sizes);

// h_t = lambda * h_{t-1} + u_t (complex, elementwise) over each run of rows; h before a run is 0.
// u_re, u_im [P, D]; lambda_re, lambda_im [D]; run_begins int64 [runs + 1], ascending from 0 to P
// -> h_re, h_im [P, D]. CPU only.
std::pair<torch::Tensor, torch::Tensor> LinearRecurrence(const torch::Tensor& u_re,
                                                         const torch::Tensor& u_im,
                                                         const torch::Tensor& lambda_re,
                                                         const torch::Tensor& lambda_im,
                                                         const std::vector<int64_t>& run_begins);

// sum_j size_weights[j] * mean over positions of the cross-entropy of labels under the softmax over
// ALL rows of `items` of <z[:s_j], items[:s_j]>. Row 0, the padding row, is a class as any other.
// z [P, D], items [N + 1, D], labels int64 [P] -> scalar.
//
// One pass over the D columns serves all sizes: logits of size j are those of size j - 1 plus level
// j's product; the gradients of the levels' logits are suffix sums over sizes, accumulated from the
// widest down. Works on blocks of positions, so that at most `memory_bytes` (and at least 16
// positions) of logits exist at once; the gradients are computed along with the loss.
torch::Tensor NestedCrossEntropy(const torch::Tensor& z, const torch::Tensor& items,
                                 const torch::Tensor& labels, const NestedSizes& sizes,
                                 const std::vector<double>& size_weights,
                                 int64_t memory_bytes = int64_t{128} << 20);

}  // namespace nestrec
