#include "model/divergence.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "absl/strings/str_format.h"

namespace nestrec {
namespace {

// The features' value of the largest size, and where it stands.
struct LargestFeature {
  float value = 0;
  int64_t row = 0, column = 0;
  std::string modality;
};

LargestFeature FindLargestFeature(const Dataset& dataset) {
  LargestFeature largest;
  for (const Modality& modality : dataset.modalities) {
    const std::vector<float>& values = modality.features.values;
    const auto found = std::max_element(values.begin(), values.end(),
                                        [](float a, float b) { return std::abs(a) < std::abs(b); });
    if (found == values.end() || std::abs(*found) <= std::abs(largest.value)) continue;
    const int64_t at = found - values.begin();
    largest = {.value = *found,
               .row = at / modality.features.columns,
               .column = at % modality.features.columns,
               .modality = modality.name};
  }
  return largest;
}

}  // namespace

std::string CauseOfDivergence(const Dataset& dataset, const Recipe& recipe) {
  // Encoders give values of about 1; products of far larger ones leave float32 (gradients do from
  // about 1e4 on).
  constexpr float kLargestUsual = 1e3f;
  const LargestFeature largest = FindLargestFeature(dataset);
  if (std::abs(largest.value) > kLargestUsual) {
    return absl::StrFormat(
        "the features are too large to train on: row %d (item %d), column %d of %s is %g; write "
        "them anew with values of about 1%s, and start anew (--overwrite, or another -o)",
        largest.row, largest.row + 1, largest.column, largest.modality, largest.value,
        recipe.feature_scaling == "none" ? ", or try --feature-scaling sqrt_width or whiten" : "");
  }
  return absl::StrFormat(
      "lower --lr (now %g)%s, and start anew (--overwrite, or another -o): --resume takes the "
      "recipe "
      "that the run began with",
      recipe.learning_rate, recipe.clip_norm == 0 ? ", or clip gradients (--clip 5)" : "");
}

}  // namespace nestrec
