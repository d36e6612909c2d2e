// The matrix products of nested layers on tensors, without autograd: what the differentiable
// operations are made of.
//
// "ragged" is [RaggedWeights(sizes)]: the levels' matrices [w_j, s_j] one after the other,
// row-major, no zeros stored.
//
// Errors are thrown (c10::Error), as libtorch does. Thread safety: as libtorch's functions.
#pragma once

#include <torch/types.h>

#include <cstdint>

#include "base/nested_sizes.h"
#include "model/gemm.h"

namespace nestrec {

// How training computes.
struct Arithmetic {
  Arithmetic(Precision operands = Precision::kFloat32,  // NOLINT(google-explicit-constructor)
             bool libtorch = false)
      : precision(operands), portable(libtorch) {}

  // What the operands of products are rounded to; on the CPU alone, and in float alone.
  Precision precision;
  // libtorch's own operations on the CPU too, instead of nestrec's kernels: what every other device
  // runs, so that it can be tested without one.
  bool portable;
};

// Number of weights of a nested layer: sum over levels of w_j * s_j.
int64_t RaggedWeights(const NestedSizes& sizes);

// Level `level` of a ragged weight as a view [w_j, s_j].
torch::Tensor RaggedLevel(const torch::Tensor& weight, const NestedSizes& sizes, int level);

// x[:, begin:end], a view.
torch::Tensor Columns(const torch::Tensor& x, int64_t begin, int64_t end);

// out [m, n] = op(a) op(b) + beta out. Rows may lie apart, not the values of a row. With beta 0,
// `out` may hold anything before.
void MultiplyInto(torch::Tensor out, const torch::Tensor& a, Op op_a, const torch::Tensor& b,
                  Op op_b, double beta, const Arithmetic& arithmetic);

// out[:, level j] = x[:, :s_j] W_j^T + beta out[:, level j]. out, x [P, D].
void NestedProduct(const torch::Tensor& out, const torch::Tensor& x, const torch::Tensor& weight,
                   const NestedSizes& sizes, double beta, const Arithmetic& arithmetic);

// The gradients of out = NestedProduct(x, weight) for dy [P, D]: added to dx [P, D], and as a new
// ragged weight.
void AddNestedInputGradient(const torch::Tensor& dx, const torch::Tensor& dy,
                            const torch::Tensor& weight, const NestedSizes& sizes,
                            const Arithmetic& arithmetic);
torch::Tensor NestedWeightGradient(const torch::Tensor& dy, const torch::Tensor& x,
                                   const NestedSizes& sizes, const Arithmetic& arithmetic);

}  // namespace nestrec
