// The one place that knows which tensors a level of a model has, what they are called and their
// shapes. Binding a checkpoint and writing one walk through it; Network::View fills the same
// structure from a network in training.
//
// Thread safety: pure functions.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "model/checkpoint.h"

namespace nestrec {

// A view with the right structure whose spans are all empty.
ModelView EmptyView(NestedSizes sizes, int blocks, int64_t item_rows, int max_len);

// F, the sum of the modality widths.
int64_t FeatureWidth(const ModelInfo& info);

// The level that a tensor belongs to ("items.level3" gives 3); nothing for tensors that no level
// owns.
std::optional<int> LevelOfTensor(absl::string_view name);

// Calls visit(name, shape, span&) for every tensor of `level`, in the order of the file. Stops at
// the first error. `visit` may assign the span.
template <typename Visitor>
absl::Status VisitLevel(ModelView& view, int64_t feature_width, int level, Visitor&& visit) {
  const int64_t width = view.sizes.width(level);
  const int64_t end = view.sizes.end(level);
  const size_t at = static_cast<size_t>(level);
  const std::string suffix = absl::StrCat("level", level);
  const auto linear = [&](const std::string& prefix, int64_t columns, LinearLevel& weights,
                          bool has_bias) -> absl::Status {
    NESTREC_RETURN_IF_ERROR(visit(absl::StrCat(prefix, ".", suffix, ".weight"),
                                  std::vector<int64_t>{width, columns}, weights.weight));
    if (!has_bias) return absl::OkStatus();
    return visit(absl::StrCat(prefix, ".", suffix, ".bias"), std::vector<int64_t>{width},
                 weights.bias);
  };
  NESTREC_RETURN_IF_ERROR(linear("projector", feature_width, view.projector[at], true));
  for (size_t b = 0; b < view.blocks.size(); ++b) {
    const std::string block = absl::StrCat("block.", b, ".");
    BlockLevel& weights = view.blocks[b][at];
    const std::pair<const char*, std::span<const float>*> vectors[] = {
        {"norm1.scale", &weights.norm1_scale}, {"norm1.shift", &weights.norm1_shift},
        {"lru.nu_log", &weights.nu_log},       {"lru.theta_log", &weights.theta_log},
        {"lru.gamma_log", &weights.gamma_log}, {"norm2.scale", &weights.norm2_scale},
        {"norm2.shift", &weights.norm2_shift},
    };
    for (const auto& [name, values] : vectors) {
      NESTREC_RETURN_IF_ERROR(
          visit(absl::StrCat(block, name, ".", suffix), std::vector<int64_t>{width}, *values));
    }
    NESTREC_RETURN_IF_ERROR(linear(block + "lru.B.re", end, weights.b_re, true));
    NESTREC_RETURN_IF_ERROR(linear(block + "lru.B.im", end, weights.b_im, true));
    NESTREC_RETURN_IF_ERROR(linear(block + "lru.C.re", end, weights.c_re, true));
    NESTREC_RETURN_IF_ERROR(linear(block + "lru.C.im", end, weights.c_im, false));
    NESTREC_RETURN_IF_ERROR(linear(block + "ffn.Wg", end, weights.wg, true));
    NESTREC_RETURN_IF_ERROR(linear(block + "ffn.W1", end, weights.w1, true));
    NESTREC_RETURN_IF_ERROR(linear(block + "ffn.W2", end, weights.w2, true));
  }
  return visit(absl::StrCat("items.", suffix), std::vector<int64_t>{view.item_rows, width},
               view.items[at]);
}

}  // namespace nestrec
