#include "model/training_memory.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace nestrec {
namespace {

constexpr uint64_t kFloatBytes = sizeof(float);
// Weights, gradient and the optimizer's two moments.
constexpr uint64_t kCopiesOfWeights = 4;
constexpr uint64_t kCopiesAtEvaluation = 2;

std::string Amount(uint64_t bytes) {
  const double mib = static_cast<double>(bytes) / static_cast<double>(uint64_t{1} << 20);
  return mib < 1024 ? absl::StrFormat("%.0f MiB", mib) : absl::StrFormat("%.1f GiB", mib / 1024);
}

bool Fits(const TrainingMemory& memory, std::span<const MemoryLimit> limits) {
  return std::all_of(limits.begin(), limits.end(),
                     [&](const MemoryLimit& limit) { return memory.total() <= limit.left_bytes; });
}

// What would fit, for a message.
std::string Cure(const Dataset& dataset, const Recipe& recipe, const NestedSizes& sizes,
                 std::span<const MemoryLimit> limits) {
  int widest = 0;
  for (const int dim : sizes.values()) {
    if (Fits(EstimateTrainingMemory(dataset, recipe, dim), limits)) widest = dim;
  }
  std::string cure;
  if (widest > 0) absl::StrAppend(&cure, "--dim ", widest, " would fit; ");
  if (recipe.item_residual && !dataset.modalities.empty()) {
    Recipe plain = recipe;
    plain.item_residual = false;
    const TrainingMemory memory = EstimateTrainingMemory(dataset, plain, sizes.max_dim());
    absl::StrAppend(&cure, "--no-item-residual needs ", Amount(memory.total()),
                    Fits(memory, limits) ? ", which would fit; " : "; ");
  }
  return absl::StrCat(cure, "or give it more memory");
}

}  // namespace

TrainingMemory EstimateTrainingMemory(const Dataset& dataset, const Recipe& recipe, int dim) {
  const auto rows = static_cast<uint64_t>(dataset.items()) + 1;
  const auto columns = static_cast<uint64_t>(dim);
  uint64_t width = 0;
  for (const Modality& modality : dataset.modalities) {
    width += static_cast<uint64_t>(modality.features.columns);
  }
  const uint64_t value_bytes =
      kFloatBytes + (recipe.precision == Recipe::kBfloat16 ? kFloatBytes / 2 : 0);
  return {
      .feature_bytes = rows * width * value_bytes,
      .residual_bytes = recipe.item_residual ? kCopiesOfWeights * rows * columns * kFloatBytes : 0,
      .evaluation_bytes = kCopiesAtEvaluation * rows * columns * kFloatBytes,
      .projector_bytes = kCopiesOfWeights * width * columns * kFloatBytes};
}

absl::Status CheckTrainingMemory(const Dataset& dataset, const Recipe& recipe,
                                 const NestedSizes& sizes, std::span<const MemoryLimit> limits) {
  const TrainingMemory memory = EstimateTrainingMemory(dataset, recipe, sizes.max_dim());
  for (const MemoryLimit& limit : limits) {
    if (memory.total() <= limit.left_bytes) continue;
    return absl::ResourceExhaustedError(absl::StrCat(
        "training ", dataset.items(), " items at --dim ", sizes.max_dim(), " needs at least ",
        Amount(memory.total()), " more (features ", Amount(memory.feature_bytes),
        ", item residuals with gradient and moments ", Amount(memory.residual_bytes),
        ", item vectors at evaluation ", Amount(memory.evaluation_bytes), ", projector ",
        Amount(memory.projector_bytes), "), but of ", limit.name, ", ", Amount(limit.limit_bytes),
        ", only ", Amount(limit.left_bytes), " is left; ", Cure(dataset, recipe, sizes, limits)));
  }
  return absl::OkStatus();
}

}  // namespace nestrec
