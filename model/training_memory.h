// Whether a training run fits into the memory that the process may have, asked before the large
// parts of it are made: a run that does not is refused with the figures, instead of a process that
// is killed in its first epoch.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "base/memory_limits.h"
#include "model/dataset.h"
#include "model/trainer.h"

namespace nestrec {

// What a run takes beside the data set that is loaded: the parts that grow with the catalogue, and
// so the least that it needs. In bytes; [N + 1, F] and [N + 1, D] matrices of float32.
struct TrainingMemory {
  uint64_t feature_bytes = 0;     // the features as the network reads them, bfloat16's copy too
  uint64_t residual_bytes = 0;    // the items' own vectors: weights, gradient, two moments
  uint64_t evaluation_bytes = 0;  // the items' vectors, whole and by level
  uint64_t projector_bytes = 0;   // as the residuals

  uint64_t total() const {
    return feature_bytes + residual_bytes + evaluation_bytes + projector_bytes;
  }
};

// With the widest size `dim`.
TrainingMemory EstimateTrainingMemory(const Dataset& dataset, const Recipe& recipe, int dim);

// Ok where a run of `sizes` fits into every limit. kResourceExhausted with what is needed and of
// what, the limit, what is left of it, and what would fit: a narrower --dim, no --item-residual.
absl::Status CheckTrainingMemory(const Dataset& dataset, const Recipe& recipe,
                                 const NestedSizes& sizes, std::span<const MemoryLimit> limits);

}  // namespace nestrec
