// The network in training: forward pass and loss. The published model (arXiv 2409.16627) is the
// default architecture; model/architecture.h has the others.
//
// All tensors float32 (tests: float64) on one device. Errors are thrown as libtorch does; callers
// go through base/guard.h. Thread safety: none; one thread at a time.
#pragma once

#include <torch/torch.h>

#include <optional>
#include <vector>

#include "base/nested_sizes.h"
#include "base/random.h"
#include "model/batch.h"
#include "model/checkpoint.h"
#include "model/item_sample.h"
#include "model/nested_dropout.h"
#include "model/nested_ops.h"
#include "model/network_parameters.h"

namespace nestrec {

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
    // Per block, the state after each position, [P, D] each: Re h and Im h of an LRU, h of a GRU,
    // nothing of attention.
    std::vector<std::vector<torch::Tensor>> states;
  };
  // features [N + 1, F] -> activations. Dropout only when `training`. Throws where a run is longer
  // than max_len and the architecture has positions.
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
  // included, but for attention's scores and sums; `positions` as in its batch.
  int64_t StepFlops(int64_t positions) const;

  // Views of every weight and of `items` [N + 1, D]; see ViewOf, which says what `kept` is for.
  ModelView View(const torch::Tensor& items, std::vector<torch::Tensor>& kept) const {
    return ViewOf(options_, parameters_, items, kept);
  }
  // See nestrec::SetProjector.
  static void SetProjector(const torch::Tensor& weight, const torch::Tensor& bias,
                           ModelView& view) {
    nestrec::SetProjector(weight, bias, view);
  }

 private:
  ItemTensors Items(const torch::Tensor& features) const;
  torch::Tensor EmbedTokens(const PackedBatch& batch, const torch::Tensor& features) const;
  torch::Tensor Linear(const torch::Tensor& x, const torch::Tensor& weight,
                       const torch::Tensor& bias) const;
  // What a block's mixer makes of n [P, D]; its state goes into `state`.
  torch::Tensor Mix(const BlockParameters& block, const torch::Tensor& n, const PackedBatch& batch,
                    const NestedDropout& drop, std::vector<torch::Tensor>& state) const;
  torch::Tensor FeedForwardOf(const BlockParameters& block, const torch::Tensor& u,
                              const NestedDropout& drop) const;

  NetworkOptions options_;
  NetworkParameters parameters_;
  NestedDropout dropout_;
  NestedCrossEntropy cross_entropy_;
  // The features in bfloat16 and what they were rounded from.
  torch::Tensor half_features_, rounded_features_;
};

}  // namespace nestrec
