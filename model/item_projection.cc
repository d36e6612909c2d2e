#include "model/item_projection.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/printable.h"
#include "model/features.h"

namespace nestrec {
namespace {

std::string ModalitiesOf(const ModelInfo& info) {
  return absl::StrJoin(info.modalities, ", ", [](std::string* out, const ModalityInfo& modality) {
    absl::StrAppend(out, Printable(modality.name), " (", modality.width, " values)");
  });
}

}  // namespace

absl::Status CheckModalityRows(const ModelInfo& info, std::span<const ModalityRow> rows) {
  if (info.modalities.empty()) {
    return absl::FailedPreconditionError(
        "this model knows items by learned vectors alone, so it has none for a new one; train a "
        "model with features");
  }
  bool is_known = false;
  for (size_t i = 0; i < rows.size(); ++i) {
    const ModalityRow& row = rows[i];
    const auto found =
        std::find_if(info.modalities.begin(), info.modalities.end(),
                     [&](const ModalityInfo& modality) { return modality.name == row.modality; });
    if (found == info.modalities.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("modality \"", Printable(row.modality),
                       "\" is not one of this model's: ", ModalitiesOf(info)));
    }
    for (size_t before = 0; before < i; ++before) {
      if (rows[before].modality == row.modality) {
        return absl::InvalidArgumentError(
            absl::StrCat("modality \"", Printable(row.modality), "\" comes twice"));
      }
    }
    if (static_cast<int64_t>(row.values.size()) != found->width) {
      return absl::InvalidArgumentError(absl::StrCat("modality \"", Printable(row.modality),
                                                     "\" has ", row.values.size(),
                                                     " values; this model's has ", found->width));
    }
    for (size_t c = 0; c < row.values.size(); ++c) {
      if (!std::isfinite(row.values[c])) {
        return absl::InvalidArgumentError(absl::StrCat("value ", c, " of modality \"",
                                                       Printable(row.modality), "\" is ",
                                                       row.values[c], "; a finite one is needed"));
      }
      is_known = is_known || row.values[c] != 0;
    }
  }
  if (!is_known) {
    return absl::InvalidArgumentError(
        "has no feature that is not zero, so nothing is known of it; give features of at least one "
        "of this model's modalities: " +
        ModalitiesOf(info));
  }
  return absl::OkStatus();
}

std::vector<float> ProjectItem(const ModelView& view, const ModelInfo& info,
                               std::span<const ModalityRow> rows) {
  std::vector<float> features;  // [F]
  for (const ModalityInfo& modality : info.modalities) {
    const auto found = std::find_if(rows.begin(), rows.end(), [&](const ModalityRow& row) {
      return row.modality == modality.name;
    });
    std::vector<float> values(static_cast<size_t>(modality.width), 0.0f);
    if (found != rows.end()) values = found->values;
    ScaleFeatureRow(modality.scaling, values);
    features.insert(features.end(), values.begin(), values.end());
  }
  std::vector<float> embedding;
  embedding.reserve(static_cast<size_t>(view.sizes.max_dim()));
  for (const LinearLevel& level : view.projector) {
    for (size_t row = 0; row < level.bias.size(); ++row) {
      const float* weights = level.weight.data() + row * features.size();
      double sum = level.bias[row];
      for (size_t c = 0; c < features.size(); ++c) {
        sum += static_cast<double>(weights[c]) * features[c];
      }
      embedding.push_back(static_cast<float>(sum));
    }
  }
  return embedding;
}

}  // namespace nestrec
