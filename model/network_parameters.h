// The weights of a network in training: their names, their start, and views of them by level.
//
// All tensors float32 (tests: float64) on one device. "ragged": [RaggedWeights(sizes)], see
// nested_products.h. What an architecture does not have is an undefined tensor.
//
// Errors are thrown as libtorch does. Thread safety: plain values.
#pragma once

#include <torch/types.h>

#include <string>
#include <vector>

#include "base/nested_sizes.h"
#include "base/random.h"
#include "model/architecture.h"
#include "model/checkpoint.h"
#include "model/gemm.h"

namespace nestrec {

struct NetworkOptions {
  NestedSizes sizes;
  int blocks = 1;
  int max_len = 50;
  // F; 0: items are learned vectors alone, and item_residual must be set.
  int64_t feature_width = 0;
  Architecture architecture = {};
  double dropout = 0.0;
  double dropout_power = 0.0;  // see NestedDropout
  // Learn a residual for every item beside the projected features. An item that was never trained
  // on has none and falls back to its content. Not in the published model.
  bool item_residual = false;
  int64_t items = 0;  // N; used with item_residual only
  // Ring initialisation of Mixer::kLru: |lambda|^2 uniform in [r_min^2, r_max^2].
  double r_min = 0.0;
  double r_max = 0.1;
  // The projector starts uniform in +- projector_scale / sqrt(F); the published model has 1.
  double projector_scale = 1.0;
  // Times the published range of the initial weights that write into the residual stream, the
  // mixer's last layer (C or O) and W2: with a small one a block begins as the identity, and z as
  // the last item's embedding.
  double branch_scale = 1.0;

  // Of the loss; see nested_softmax.h. Empty size_weights: all equal, adding up to 1.
  std::vector<double> size_weights = {};
  std::vector<double> inverse_temperatures = {};
  double distillation = 0;
  // Of the matrix products in training; weights, sums and the optimizer stay float32.
  Precision precision = Precision::kFloat32;
  // Where the weights live; features and batches are brought there by the caller and the network.
  torch::Device device = torch::kCPU;
  // On the CPU, compute as other devices do; see Arithmetic.
  bool portable = false;
};

struct LruParameters {
  torch::Tensor nu_log, theta_log, gamma_log;      // [D]
  torch::Tensor b_re, b_re_bias, b_im, b_im_bias;  // ragged, [D]
  torch::Tensor c_re, c_re_bias, c_im;  // ragged, [D]; Im of C's bias never reaches the output
};

// Of the reset gate, the update gate and the candidate: what the input says, with a bias, and what
// the state does.
struct GruParameters {
  torch::Tensor wr, wr_bias, wu, wu_bias, wc, wc_bias;  // ragged, [D]
  torch::Tensor ur, uu, uc;                             // ragged
  torch::Tensor o, o_bias;                              // ragged, [D]: from h to the output
};

struct AttentionParameters {
  torch::Tensor q, q_bias, k, k_bias, v, v_bias, o, o_bias;  // ragged, [D]
};

struct BlockParameters {
  torch::Tensor norm1_scale, norm1_shift;  // [D]
  LruParameters lru;                       // one of the three
  GruParameters gru;
  AttentionParameters attention;
  torch::Tensor norm2_scale, norm2_shift;               // [D]
  torch::Tensor wg, wg_bias, w1, w1_bias, w2, w2_bias;  // ragged, [D]; Wg of FeedForward::kGated
};

struct NetworkParameters {
  torch::Tensor projector;       // [D, F]; with F > 0
  torch::Tensor projector_bias;  // [D]
  torch::Tensor item_residual;  // [N + 1, D], or undefined: what the features cannot say of an item
  torch::Tensor positions;      // [max_len, D]: of a row by its depth in its run
  std::vector<BlockParameters> blocks;
  torch::Tensor final_scale, final_shift;  // [D]

  struct Named {
    std::string name;  // "block.0.ffn.Wg.weight"
    torch::Tensor* tensor;
    bool is_bias;  // exempt from weight decay
  };
  // Every parameter that is defined, in a fixed order.
  std::vector<Named> All();
};

// Fresh weights from `random`, on options.device, that gradients are kept of.
NetworkParameters StartParameters(const NetworkOptions& options, Random& random);

// Views of every weight, by level, and of `items` [N + 1, D] split by level. They are views on the
// parameters' own memory where it is contiguous and on the CPU, else on copies; what must outlive
// them beside the parameters is put into `kept`. Valid until parameters are replaced; only views on
// their own memory follow steps.
ModelView ViewOf(const NetworkOptions& options, const NetworkParameters& parameters,
                 const torch::Tensor& items, std::vector<torch::Tensor>& kept);

// Lets `view` show this projector, weight [D, F] and bias [D], instead: contiguous tensors on the
// CPU, which the caller keeps alive.
void SetProjector(const torch::Tensor& weight, const torch::Tensor& bias, ModelView& view);

}  // namespace nestrec
