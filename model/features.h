// The frozen item features as the network reads them: modalities side by side, scaled as the recipe
// says.
//
// Thread safety: pure functions.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/npy.h"
#include "model/checkpoint.h"
#include "model/dataset.h"

namespace nestrec {

// kInvalidArgument unless `scaling` is "none", "sqrt_width" or "whiten".
absl::Status CheckFeatureScaling(absl::string_view scaling);

// Scales one modality's row in place: "sqrt_width" gives every non-zero row the norm sqrt(width),
// so that each column is about 1 whatever the encoder's scale; the others leave it ("whiten" looks
// at all rows: model/whitening.h).
void ScaleFeatureRow(absl::string_view scaling, std::span<float> row);

// [items + 1, F]: row 0 is the padding item, zeros; row i is item i's modalities one after the
// other.
absl::StatusOr<Matrix> ConcatenateFeatures(const Dataset& dataset, absl::string_view scaling);

// What a checkpoint says of the modalities. Whitening is folded into its projector and so not
// mentioned.
std::vector<ModalityInfo> DescribeModalities(const Dataset& dataset, absl::string_view scaling);

}  // namespace nestrec
