#include "model/training_inputs.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "model/training_state.h"

namespace nestrec {

using Json = nlohmann::ordered_json;

std::string RunIdentity(const Dataset& dataset, const TrainerOptions& options) {
  Json json = Json::parse(options.recipe.ToJson());
  json["sizes"] = options.sizes.ToString();
  json["data"] = dataset.fingerprint;
  if (options.device == DeviceKind::kCuda) json["device"] = "cuda";  // it draws other numbers
  for (const Modality& modality : dataset.modalities) {
    json[absl::StrCat("modality ", modality.name)] = modality.features.columns;
    json[absl::StrCat(kFeaturesOfIdentity, modality.name)] = FeaturesFingerprint(modality.features);
  }
  return json.dump();
}

std::vector<int64_t> ModalityWidths(const Dataset& dataset) {
  std::vector<int64_t> widths;
  for (const Modality& modality : dataset.modalities) widths.push_back(modality.features.columns);
  return widths;
}

std::vector<int64_t> LabelCounts(const Dataset& dataset,
                                 const std::vector<TrainingWindow>& windows) {
  std::vector<int64_t> counts(static_cast<size_t>(dataset.items()) + 1, 0);
  for (const TrainingWindow& window : windows) {
    const auto sequence = dataset.sequence(window.user);
    for (int32_t i = window.begin; i < window.end; ++i) {
      ++counts[static_cast<size_t>(sequence[static_cast<size_t>(i)])];
    }
  }
  return counts;
}

std::vector<int64_t> LabelledOf(const PackedBatch& batch) {
  std::vector<int64_t> labels;
  std::copy_if(batch.labels.begin(), batch.labels.end(), std::back_inserter(labels),
               [](int64_t label) { return label != 0; });
  return labels;
}

absl::StatusOr<Matrix> NetworkFeatures(const Dataset& dataset, const Recipe& recipe) {
  if (!dataset.modalities.empty()) return ConcatenateFeatures(dataset, recipe.feature_scaling);
  if (recipe.item_residual) return Matrix{.rows = dataset.items() + 1, .columns = 0, .values = {}};
  return absl::InvalidArgumentError(
      "--item-residual: not set, but without features (--modalities none) a learned vector is all "
      "that an item has; set it");
}

}  // namespace nestrec
