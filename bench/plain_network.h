// The fMRLRec training step as it is written down, without any of nestrec's shortcuts: the baseline
// that the training bench measures against.
//
// All sequences padded to max_len, the recurrence by doubling over a power of two, complex
// arithmetic, the whole item table projected under autograd, and every size's logits [all
// positions, items] materialised. Same parameters, same loss, same gradients as nestrec's network.
#pragma once

#include <torch/torch.h>

#include <vector>

#include "base/nested_sizes.h"
#include "model/network.h"

namespace nestrec {

// tokens, labels int64 [B, L], padded on the left: a label of -100 does not count, and a token 0
// never passes its state on.
struct PaddedBatch {
  torch::Tensor tokens;
  torch::Tensor labels;
};

// The batch's rows, each a stretch of its positions.
PaddedBatch Pad(const PackedBatch& batch, const std::vector<int64_t>& row_begins, int64_t max_len);

// What a step may do otherwise, to measure whether it is worth building.
struct PlainVariant {
  // Scores at size s are <z[:s], e[:s]> sqrt(s) / ||e[:s]||: prefix-normalised items.
  bool unit_items = false;
  // The loss counts the first so many sizes; 0: all.
  int levels = 0;
  // [N + 1, F] that the network reads items by; undefined: the features, which stay the targets'.
  torch::Tensor input_features = {};
};

// features [N + 1, F] -> the mean over sizes of the mean cross-entropy over labelled positions.
// Dropout is drawn from libtorch's generator.
torch::Tensor PlainLoss(const NetworkParameters& parameters, const NestedSizes& sizes,
                        const PaddedBatch& batch, const torch::Tensor& features, double dropout = 0,
                        const PlainVariant& variant = {});

}  // namespace nestrec
