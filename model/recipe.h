// The recipe of a training run: what the model learns depends on, beside its sizes and its data.
//
//   NESTREC_ASSIGN_OR_RETURN(Recipe recipe, Recipe::Named("paper"));
//   recipe.epochs = 20;
//   NESTREC_RETURN_IF_ERROR(recipe.Check());
//
// A Recipe{} is "paper": the published settings of arXiv 2409.16627. "nestrec" is what
// docs/results.md found to be better, above all at narrow sizes.
//
// Thread safety: a value.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/nested_sizes.h"
#include "model/architecture.h"
#include "model/batch.h"

namespace nestrec {

struct Recipe {
  static constexpr char kUniform[] = "uniform";
  static constexpr char kPrincipal[] = "principal";
  static constexpr char kFloat32[] = "float32";
  static constexpr char kBfloat16[] = "bfloat16";

  double learning_rate = 1e-4;
  int64_t batch_size = 32;  // training sequences per step, of all ranks together
  int max_len = 50;
  int blocks = 1;
  double dropout = 0.6;
  // Columns of level j are dropped with probability dropout * (s_j / D)^dropout_power.
  double dropout_power = 0.0;
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
  // See Architecture (model/architecture.h); the published recipe has an LRU and gates.
  std::string mixer = "lru";           // "lru", "gru" or "attention"
  int head_width = 64;                 // of attention
  std::string feed_forward = "gated";  // or "relu"
  bool final_norm = false;
  double input_scale = 1.0;
  // See NetworkOptions; the published recipe has 1.
  double projector_scale = 1.0;
  // "uniform", or "principal": the projector starts at the features' principal directions times
  // projector_scale, so that narrow sizes begin with most of what sets items apart.
  std::string projector_start = kUniform;
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
  // kFloat32 or kBfloat16: what the operands of training's matrix products are rounded to.
  std::string precision = kFloat32;
  uint64_t seed = 1;

  // kInvalidArgument for a name that is not in Names().
  static absl::StatusOr<Recipe> Named(absl::string_view name);
  // "nestrec", "paper".
  static std::vector<std::string> Names();

  // kInvalidArgument, naming the flag of `nestrec train`, its value and the limits, for a field
  // outside them or what does not fit the sizes; kFailedPrecondition for a precision that this
  // processor does not have.
  absl::Status Check() const;
  absl::Status CheckAgainst(const NestedSizes& sizes) const;

  // The same recipe for items that have no features: each is a learned vector alone.
  Recipe WithoutFeatures() const;

  // REQUIRES: Check() is OK.
  Architecture MakeArchitecture() const;

  // Linear warm-up, then half a cosine down to 0 at the last of all steps. `step` is 0-based.
  double LearningRateAt(int64_t step, int64_t total_steps) const;
  // By which each size's scores are multiplied in the loss; empty: by 1.
  std::vector<double> InverseTemperatures(const NestedSizes& sizes) const;
  // size_weights scaled to sum 1; empty: all alike.
  std::vector<double> NormalisedSizeWeights() const;

  // Every field that says something about the result, in a fixed order.
  std::string ToJson() const;
};

}  // namespace nestrec
