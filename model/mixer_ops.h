// What moves information along the sequences of a packed batch (model/batch.h), beside the linear
// recurrence of model/nested_ops.h: a gated recurrence and causal attention, both nested by level.
//
// run_begins is int64 [runs + 1], ascending from 0 to P: rows [run_begins[r], run_begins[r + 1])
// are one sequence, oldest first. Works on every device; tested against the plain formulas in
// double precision.
//
// Errors are thrown (c10::Error), as libtorch does. Thread safety: as libtorch's functions.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <vector>

#include "base/nested_sizes.h"
#include "model/nested_products.h"

namespace nestrec {

// What the state is multiplied with before each gate; ragged.
struct GateWeights {
  torch::Tensor reset, update, candidate;
};

// A gated recurrent unit (arXiv 1406.1078; the reset gate applied after the product, as cuDNN does)
// over each run of rows; h before a run is 0:
//   r = sigmoid(x_reset + U_r h), u = sigmoid(x_update + U_u h),
//   c = tanh(x_candidate + r * (U_c h)), h = (1 - u) * c + u * h.
// The x are what the inputs say of each gate, [P, D] -> h after every row [P, D].
// In time steps: all runs that are still going on make step t together. The products of the state
// are float32 whatever the precision; they read their weights anew in each step, and would round
// them as often.
torch::Tensor GatedRecurrence(const torch::Tensor& x_reset, const torch::Tensor& x_update,
                              const torch::Tensor& x_candidate, const GateWeights& weights,
                              const NestedSizes& sizes, const std::vector<int64_t>& run_begins,
                              const Arithmetic& arithmetic = {});

// softmax(q k^T / sqrt(head)) v for every head (HeadWidth in model/architecture.h), each row over
// its own and the earlier rows of its run. q, k, v [P, D] -> [P, D]. With `dropout` > 0 the softmax
// is dropped out. Scores exist for runs of about the same length at a time.
torch::Tensor CausalAttention(const torch::Tensor& q, const torch::Tensor& k,
                              const torch::Tensor& v, const NestedSizes& sizes, int head_width,
                              const std::vector<int64_t>& run_begins, double dropout = 0);

// How far each row is into its run, from 0: int64 [P].
std::vector<int64_t> Depths(const std::vector<int64_t>& run_begins);

}  // namespace nestrec
