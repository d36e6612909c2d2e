// The model file of a training run: written after every epoch that is the best so far, completed
// with the figures of the test items after the last.
//
// Ownership: looks at the data and the options.
// Thread safety: const methods may run in parallel; all write one file, atomically.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/checkpoint.h"
#include "model/dataset.h"
#include "model/encoder.h"
#include "model/evaluator.h"
#include "model/metrics.h"
#include "model/network.h"
#include "model/trainer.h"
#include "model/whitening.h"

namespace nestrec {

class ModelWriter {
 public:
  using Evaluate = std::function<absl::StatusOr<Evaluation>(const Encoder&)>;

  ModelWriter(const Dataset& dataset, const TrainerOptions& options)
      : dataset_(dataset), options_(options) {}

  // The network as it is, with the items that it makes of `features`, [items + 1, F]. `whitening`
  // is what was done to them, and becomes part of the projector; null: nothing. Errors of
  // WriteCheckpoint.
  absl::Status Write(Network& network, const torch::Tensor& features, const Whitening* whitening,
                     const std::vector<SizeMetrics>& validation) const;

  // Evaluates what was written by `evaluate`, on the test items, and writes it again with the
  // figures, how long it was trained, and what a server checks itself against. Errors of
  // Checkpoint::Open, Encoder::Create, evaluate and WriteCheckpoint.
  absl::StatusOr<std::vector<SizeMetrics>> Complete(const Evaluate& evaluate,
                                                    absl::Duration training_time) const;

 private:
  absl::StatusOr<std::shared_ptr<const SafetensorsFile>> TextEncoderFile() const;

  const Dataset& dataset_;
  const TrainerOptions& options_;
};

}  // namespace nestrec
