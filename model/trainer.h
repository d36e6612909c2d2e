// Trains a nested model: one run, one checkpoint with every size in it.
//
//   TrainerOptions options{.sizes = sizes, .output = "m.safetensors"};
//   absl::StatusOr<TrainingResult> result = Train(*dataset, options, observer);
//
// The recipe is that of arXiv 2409.16627; the defaults are the authors'
// published settings. After every epoch all sizes are evaluated on the validation items; the best
// epoch by NDCG@10 at the widest size is the checkpoint at `output`; weights, optimizer and
// progress go to "<output>.state", from which an interrupted run resumes and gives the same model
// as one that was never interrupted (same machine and thread count). A run that is told to stop
// writes its state in the middle of an epoch; one that is killed loses the epoch. Both files are
// replaced atomically.
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
#include "model/distributed.h"
#include "model/metrics.h"

namespace nestrec {

// What the model learns depends on.
struct Recipe {
  double learning_rate = 1e-4;
  int64_t batch_size = 32;  // training sequences per step, of all ranks together
  int max_len = 50;
  int blocks = 1;
  double dropout = 0.6;
  double weight_decay = 0.01;
  double adam_epsilon = 1e-9;
  double clip_norm = 5.0;
  int warmup_steps = 100;
  int epochs = 500;   // the cosine schedule's length and the most epochs trained
  int patience = 10;  // epochs without a better validation NDCG@10 at the widest size
  double r_min = 0.0;
  double r_max = 0.1;
  Windows windows = Windows::kLast;
  // "none", "sqrt_width" (rows to norm sqrt(width)) or "whiten" (model/whitening.h).
  std::string feature_scaling = "none";
  // Learn a vector per item beside its content; see NetworkOptions.
  bool item_residual = false;
  // The projector starts uniform in +- projector_scale / sqrt(F); the published recipe has 1.
  double projector_scale = 1.0;
  // "uniform", or "principal": the projector starts at the features' principal directions times
  // projector_scale, so that narrow sizes begin with most of what sets items apart.
  std::string projector_start = "uniform";
  double branch_scale = 1.0;  // see NetworkOptions
  // How much each size weighs in the loss, narrow to wide, scaled to sum 1; empty: all alike.
  std::vector<double> size_weights;
  // Scores at size s are divided by temperature * (s / D)^temperature_power before the softmax of
  // the loss: without it, wide sizes begin with far larger logits than narrow ones.
  double temperature = 1.0;
  double temperature_power = 0.0;
  // Share of the widest size's softmax in the target of the narrower ones.
  double distillation = 0.0;
  // About so many items stand for all in the softmax; 0: all.
  int64_t sampled_items = 0;
  // "float32" or "bfloat16": what the operands of training's matrix products are rounded to.
  std::string precision = "float32";
  uint64_t seed = 1;

  std::string ToJson() const;
};

struct TrainerOptions {
  NestedSizes sizes;
  Recipe recipe;
  std::string name;  // the model's label
  std::string program_version;
  std::string output;      // the checkpoint; "<output>.state" beside it
  bool resume = false;     // go on from the state file when there is one
  bool overwrite = false;  // start anew although output exists
  int threads = 0;         // 0: all cores; those of a machine are shared by its ranks
  // Of a data-parallel run; outlives Train. Null: this process trains alone.
  ProcessGroup* group = nullptr;
};

struct StepReport {
  int epoch;                    // 1-based
  int64_t step, steps;          // within the epoch
  double loss;                  // of this step
  double positions_per_second;  // mean of this epoch
  double gflops_per_second;     // of matrix products, likewise; 0 where they are not counted
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

// kInvalidArgument, naming the flag of `nestrec train`, its value and the limits, for a recipe
// outside them. Train checks it first.
absl::Status CheckRecipe(const Recipe& recipe);

// Whether `output` can be written and may be: kAlreadyExists when it exists and neither resume nor
// overwrite is set, or resume is but its state is gone; errors of base/file.h. Train checks it
// before it begins.
absl::Status CheckOutput(const TrainerOptions& options);

// kInvalidArgument for a recipe outside its limits; kAlreadyExists when output exists and neither
// resume nor overwrite is set; kFailedPrecondition when the state belongs to other data, sizes or
// recipe (the differences are named); kAborted, naming step and cure, when the loss stops being a
// number: features that are too large to train on are named with their place; kCancelled; errors of
// base/file.h; with a group those of model/distributed.h and model/replicas.h.
absl::StatusOr<TrainingResult> Train(const Dataset& dataset, const TrainerOptions& options,
                                     const TrainingObserver& observer);

}  // namespace nestrec
