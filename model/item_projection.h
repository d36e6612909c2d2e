// The embedding of an item from its features alone: e = W_p f + b_p (arXiv 2409.16627, section 3),
// with the weights of a trained model. What the item's table holds for items that it was trained
// on, but for an item residual, which only training gives.
//
// Thread safety: pure functions.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint.h"

namespace nestrec {

// An item's features of one modality, as the encoder gave them: not yet scaled.
struct ModalityRow {
  std::string modality;
  std::vector<float> values;
};

// kFailedPrecondition for a model that knows items by learned vectors alone. kInvalidArgument,
// naming the modality: one that the model does not have or that comes twice, another number of
// values than its width, a value that is not finite; and rows that are all zero, or none: of such
// an item nothing is known. A modality that is left out counts as zeros, as it does in training.
absl::Status CheckModalityRows(const ModelInfo& info, std::span<const ModalityRow> rows);

// [D]. REQUIRES: CheckModalityRows is ok, and `view` is that model's.
std::vector<float> ProjectItem(const ModelView& view, const ModelInfo& info,
                               std::span<const ModalityRow> rows);

}  // namespace nestrec
