// The fMRLRec network in training (arXiv 2409.16627): parameters, forward pass,
// loss.
//
// All tensors float32 (tests: float64) on one device. Errors are thrown as libtorch does; callers
// go through base/guard.h. Thread safety: none; one thread at a time.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/nested_sizes.h"
#include "base/random.h"
#include "model/batch.h"
#include "model/checkpoint.h"
#include "model/item_sample.h"
#include "model/nested_ops.h"

namespace nestrec {

// Parameters of one block. "ragged": [RaggedWeights(sizes)], see nested_ops.h.
struct BlockParameters {
  torch::Tensor norm1_scale, norm1_shift;          // [D]
  torch::Tensor nu_log, theta_log, gamma_log;      // [D]
  torch::Tensor b_re, b_re_bias, b_im, b_im_bias;  // ragged, [D]
  torch::Tensor c_re, c_re_bias, c_im;     // ragged, [D]; Im of C's bias never reaches the output
  torch::Tensor norm2_scale, norm2_shift;  // [D]
  torch::Tensor wg, wg_bias, w1, w1_bias, w2, w2_bias;  // ragged, [D]
};

struct NetworkParameters {
  torch::Tensor projector;       // [D, F]
  torch::Tensor projector_bias;  // [D]
  torch::Tensor item_residual;  // [N + 1, D], or undefined: what the features cannot say of an item
  std::vector<BlockParameters> blocks;

  struct Named {
    std::string name;  // "block.0.ffn.Wg.weight"
    torch::Tensor* tensor;
    bool is_bias;  // exempt from weight decay
  };
  // Every parameter, in a fixed order.
  std::vector<Named> All();
};

struct NetworkOptions {
  NestedSizes sizes;
  int blocks = 1;
  int max_len = 50;
  int64_t feature_width = 0;
  double dropout = 0.0;
  // Learn a residual for every item beside the projected features. An item that was never trained
  // on has none and falls back to its content. Not in the published model.
  bool item_residual = false;
  int64_t items = 0;  // N; used with item_residual only
  // Ring initialisation: |lambda|^2 uniform in [r_min^2, r_max^2].
  double r_min = 0.0;
  double r_max = 0.1;
  // The projector starts uniform in +- projector_scale / sqrt(F); the published model has 1.
  double projector_scale = 1.0;
  // Times the published range of the initial weights that write into the residual stream, C and W2:
  // with a small one a block begins as the identity, and z as the last item's embedding.
  double branch_scale = 1.0;

  // Of the loss; see nested_softmax.h. Empty size_weights: all equal, adding up to 1.
  std::vector<double> size_weights = {};
  std::vector<double> inverse_temperatures = {};
  double distillation = 0;
  // Of the matrix products in training; weights, sums and the optimizer stay float32.
  Precision precision = Precision::kFloat32;
};

class Network {
 public:
  // Fresh weights from `random`.
  Network(const NetworkOptions& options, Random random);

  const NetworkOptions& options() const { return options_; }
  NetworkParameters& parameters() { return parameters_; }

  // Lets the projector's first rows start as `weight` [rows, F] and `bias` [rows] times
  // projector_scale. REQUIRES: rows <= D.
  void StartProjectorAt(const torch::Tensor& weight, const torch::Tensor& bias);

  // features [N + 1, F], row 0 zeros -> item embeddings [N + 1, D].
  torch::Tensor ItemEmbeddings(const torch::Tensor& features) const;
  struct Activations {
    torch::Tensor z;  // [P, D]
    std::vector<torch::Tensor> h_re,
        h_im;  // per block [P, D]: the recurrent state after each position
  };
  // features [N + 1, F] -> activations. Dropout only when `training`.
  Activations Run(const PackedBatch& batch, const torch::Tensor& features, bool training) const;
  // Run's z.
  torch::Tensor Forward(const PackedBatch& batch, const torch::Tensor& features,
                        bool training) const {
    return Run(batch, features, training).z;
  }
  // The training loss of `z`: over sizes and over the mean of the cross-entropy over the labelled
  // positions, of which there is at least one. One thread at a time.
  torch::Tensor Loss(const PackedBatch& batch, const torch::Tensor& z,
                     const torch::Tensor& features) {
    return Loss(batch, z, features, {});
  }
  // The same over a sample of the items, when there is one.
  torch::Tensor Loss(const PackedBatch& batch, const torch::Tensor& z,
                     const torch::Tensor& features, const std::optional<ItemSample>& sample);

  // Multiplications and additions in the matrix products of the last training step, gradients
  // included; `positions` as in its batch.
  int64_t StepFlops(int64_t positions) const;

  // Views of every weight, by level, on this network's own memory, and of `items` [N + 1, D] split
  // by level into `item_levels`, which the caller keeps alive. Stays valid until parameters are
  // replaced (steps write in place).
  ModelView View(const torch::Tensor& items, std::vector<torch::Tensor>& item_levels) const;
  // Lets `view` show this projector, weight [D, F] and bias [D], instead; the caller keeps it
  // alive.
  static void SetProjector(const torch::Tensor& weight, const torch::Tensor& bias, ModelView& view);

 private:
  ItemTensors Items(const torch::Tensor& features) const;
  torch::Tensor EmbedTokens(const PackedBatch& batch, const torch::Tensor& features) const;

  NetworkOptions options_;
  NetworkParameters parameters_;
  NestedCrossEntropy cross_entropy_;
  // The features in bfloat16 and what they were rounded from.
  torch::Tensor half_features_, rounded_features_;
};

}  // namespace nestrec
