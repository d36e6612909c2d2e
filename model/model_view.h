// The one place that knows which tensors a level of a model has, what they are called and their
// shapes. Binding a checkpoint and writing one walk through it; Network::View fills the same
// structure from a network in training.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "model/checkpoint.h"

namespace nestrec {

// A view with the right structure whose spans are all empty.
ModelView EmptyView(NestedSizes sizes, int blocks, int64_t item_rows, int max_len,
                    const Architecture& architecture = {});

// F, the sum of the modality widths.
int64_t FeatureWidth(const ModelInfo& info);

// The level that a tensor belongs to ("items.level3" gives 3); nothing for tensors that no level
// owns.
std::optional<int> LevelOfTensor(absl::string_view name);

// What VisitLevel calls for each tensor; may assign the span.
using TensorVisitor = absl::FunctionRef<absl::Status(
    const std::string& name, const std::vector<int64_t>& shape, std::span<const float>& values)>;

// Calls `visit` for every tensor of `level`, in the order of the file. Stops at the first error.
absl::Status VisitLevel(ModelView& view, int64_t feature_width, int level, TensorVisitor visit);

}  // namespace nestrec
