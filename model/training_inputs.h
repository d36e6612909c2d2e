// What a training run takes from its data and its recipe before the first step.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/batch.h"
#include "model/dataset.h"
#include "model/features.h"
#include "model/trainer.h"

namespace nestrec {

// What a run that goes on, and every process of one, must have in common, as a JSON object: recipe,
// sizes, data, features.
std::string RunIdentity(const Dataset& dataset, const TrainerOptions& options);

// Columns of each modality, in the order of the features.
std::vector<int64_t> ModalityWidths(const Dataset& dataset);

// How often each item is a label of the windows, [items + 1].
std::vector<int64_t> LabelCounts(const Dataset& dataset,
                                 const std::vector<TrainingWindow>& windows);

// The items that the batch's positions are to predict, one for each that counts.
std::vector<int64_t> LabelledOf(const PackedBatch& batch);

// The features as the network reads them, [items + 1, F]; of items without any, no columns.
// kInvalidArgument where an item would have neither features nor a vector of its own.
absl::StatusOr<Matrix> NetworkFeatures(const Dataset& dataset, const Recipe& recipe);

}  // namespace nestrec
