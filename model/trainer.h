// Trains a nested model: one run, one checkpoint with every size in it.
//
//   TrainerOptions options{.sizes = sizes, .output = "m.safetensors"};
//   absl::StatusOr<TrainingResult> result = Train(*dataset, options, observer);
//
// After every epoch all sizes are evaluated on the validation items; the best epoch by NDCG@10 at
// the widest size is the checkpoint at `output`; weights, optimizer and progress go to
// "<output>.state", from which an interrupted run resumes and gives the same model as one that was
// never interrupted (same machine and thread count). A run that is told to stop writes its state in
// the middle of an epoch; one that is killed loses the epoch. Both files are replaced atomically.
//
// Several processes train as one when TrainerOptions::group is set (model/distributed.h): each
// takes its share of every batch and all make the same step, as one process would but for rounding
// and dropout. Rank 0 alone reads the state, evaluates, writes and has an on_epoch and metrics.
//
// Thread safety: one Train at a time per process (libtorch's thread count and random generator are
// global).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/nested_sizes.h"
#include "model/batch.h"
#include "model/dataset.h"
#include "model/device.h"
#include "model/distributed.h"
#include "model/metrics.h"
#include "model/recipe.h"

namespace nestrec {

struct TrainerOptions {
  NestedSizes sizes;
  Recipe recipe;
  std::string name;  // the model's label
  std::string program_version;
  std::string output;                    // the checkpoint; "<output>.state" beside it
  bool resume = false;                   // go on from the state file when there is one
  bool overwrite = false;                // start anew although output exists
  int threads = 0;                       // 0: all cores; those of a machine are shared by its ranks
  DeviceKind device = DeviceKind::kCpu;  // where it computes; evaluation stays on the processor
  bool portable = false;  // compute as other devices do, on the processor; see NetworkOptions
  // Of a data-parallel run; outlives Train. Null: this process trains alone.
  ProcessGroup* group = nullptr;
};

struct StepReport {
  int epoch;                    // 1-based
  int64_t step, steps;          // within the epoch
  double loss;                  // of this step
  double positions_per_second;  // mean of this epoch
  double gflops_per_second;     // of matrix products, likewise
};

struct EpochReport {
  int epoch;             // 1-based
  double loss;           // mean over the epoch's steps
  double learning_rate;  // of the last step
  double gradient_norm;  // mean before clipping
  int64_t positions;     // trained in this epoch
  double flops;          // in its matrix products
  absl::Duration training_time, evaluation_time;
  std::vector<SizeMetrics> validation;
  bool best;  // the checkpoint is now this epoch
  int epochs_without_gain;
};

struct TrainingObserver {
  std::function<void(const StepReport&)> on_step;
  std::function<void(const EpochReport&)> on_epoch;
  // Facts worth a line: resumed from epoch 3, features scaled, ...
  std::function<void(const std::string&)> on_note;
  // Polled every step; true saves the run as it is, and ends it with kCancelled. In a data-parallel
  // run one rank's is enough for all.
  std::function<bool()> should_stop;
};

struct TrainingResult {
  int epochs = 0;  // trained in all
  int best_epoch = 0;
  std::vector<SizeMetrics> validation, test;  // of the best epoch; on rank 0 alone
  absl::Duration training_time;  // without evaluation, over all sessions of a resumed run
};

// Whether `output` can be written and may be: kAlreadyExists when it exists and neither resume nor
// overwrite is set, or resume is but its state is gone; errors of base/file.h. Train checks it
// before it begins.
absl::Status CheckOutput(const TrainerOptions& options);

// kInvalidArgument for a recipe outside its limits; kAlreadyExists when output exists and neither
// resume nor overwrite is set; kFailedPrecondition when the state belongs to other data, sizes or
// recipe (the differences are named); kAborted, naming step and cure, when the loss stops being a
// number: features that are too large to train on are named with their place; kCancelled; errors of
// base/file.h; with a group those of model/distributed.h and model/replicas.h; on the
// processor those of model/training_memory.h.
absl::StatusOr<TrainingResult> Train(const Dataset& dataset, const TrainerOptions& options,
                                     const TrainingObserver& observer);

}  // namespace nestrec
