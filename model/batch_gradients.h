// The gradients of one batch: what every rank of a run does in a step up to the optimizer. Only the
// trainer includes it.
//
// A rank takes its share of the batch's windows; loss and gradients are then those of the whole
// batch, on every rank. With a sampled softmax the items of a step follow from the seed, the step's
// number and the batch, so that a resumed run, and every rank, draws the same.
//
// Errors of libtorch are thrown. Thread safety: one call at a time.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "model/batch.h"
#include "model/dataset.h"
#include "model/distributed.h"
#include "model/item_sample.h"
#include "model/network.h"
#include "model/trainer.h"

namespace nestrec {

class BatchGradients {
 public:
  // All but `windows`, those of an epoch, outlive it.
  BatchGradients(const Dataset& dataset, const TrainerOptions& options,
                 const std::vector<TrainingWindow>& windows, Network& network);

  // Of `windows`, the whole batch; leaves the gradients in the network's parameters. features
  // [items + 1, F]; `step` is the number of steps before it in the run; `told_to_stop` goes to all
  // ranks. REQUIRES: the parameters have no gradients. Errors of ProcessGroup::ReduceStep.
  absl::StatusOr<StepTotals> Compute(std::span<const TrainingWindow> windows,
                                     const torch::Tensor& features, int64_t step,
                                     bool told_to_stop);

 private:
  std::span<const TrainingWindow> OwnShare(std::span<const TrainingWindow> windows) const;
  ItemSample Sample(std::span<const TrainingWindow> windows, std::span<const TrainingWindow> own,
                    int64_t step) const;

  const Dataset& dataset_;
  const uint64_t seed_;
  ProcessGroup* const group_;  // null: alone
  Network& network_;
  std::optional<ItemSampler> sampler_;
};

}  // namespace nestrec
