#include "model/features.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace nestrec {

absl::Status CheckFeatureScaling(absl::string_view scaling) {
  if (scaling == "none" || scaling == "sqrt_width" || scaling == "whiten") return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--feature-scaling: '", scaling,
                                                 "' is unknown; use none, sqrt_width or whiten"));
}

void ScaleFeatureRow(absl::string_view scaling, std::span<float> row) {
  if (scaling != "sqrt_width") return;
  double squares = 0;
  for (const float value : row) squares += static_cast<double>(value) * value;
  if (squares == 0) return;
  const double factor = std::sqrt(static_cast<double>(row.size()) / squares);
  for (float& value : row) value = static_cast<float>(value * factor);
}

absl::StatusOr<Matrix> ConcatenateFeatures(const Dataset& dataset, absl::string_view scaling) {
  NESTREC_RETURN_IF_ERROR(CheckFeatureScaling(scaling));
  Matrix all{.rows = dataset.items() + 1, .columns = 0, .values = {}};
  for (const Modality& modality : dataset.modalities) all.columns += modality.features.columns;
  if (all.columns == 0)
    return absl::FailedPreconditionError("the data has no features to learn from");
  all.values.resize(static_cast<size_t>(all.rows * all.columns));
  for (int64_t item = 1; item < all.rows; ++item) {
    size_t at = 0;
    for (const Modality& modality : dataset.modalities) {
      const std::span<const float> source = modality.features.row(item - 1);
      const std::span<float> target = all.row(item).subspan(at, source.size());
      std::copy(source.begin(), source.end(), target.begin());
      ScaleFeatureRow(scaling, target);
      at += source.size();
    }
  }
  return all;
}

std::vector<ModalityInfo> DescribeModalities(const Dataset& dataset, absl::string_view scaling) {
  std::vector<ModalityInfo> result;
  for (const Modality& modality : dataset.modalities) {
    result.push_back({modality.name, modality.features.columns,
                      scaling == "sqrt_width" ? "sqrt_width" : "none",
                      FeaturesFingerprint(modality.features)});
  }
  return result;
}

}  // namespace nestrec
