#include "model/recipe.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "model/features.h"
#include "model/gemm.h"

namespace nestrec {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kPaper[] = "paper";
constexpr char kNestrec[] = "nestrec";

// What docs/results.md measured to be worth it.
Recipe NestrecRecipe() {
  Recipe recipe;
  recipe.learning_rate = 1e-3;
  recipe.batch_size = 128;
  recipe.blocks = 2;
  recipe.dropout = 0.5;
  recipe.dropout_power = 0.25;
  recipe.epochs = 12;
  recipe.patience = 4;
  recipe.r_min = 0.3;
  recipe.r_max = 0.95;
  recipe.feature_scaling = "whiten";
  recipe.item_residual = true;
  recipe.projector_scale = 0.1;
  recipe.projector_start = Recipe::kPrincipal;
  recipe.branch_scale = 0.1;
  recipe.temperature_power = 0.75;
  return recipe;
}

absl::Status CheckWhole(absl::string_view flag, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": ", value, " is outside ", low, " to ", high));
}

absl::Status CheckReal(absl::string_view flag, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();  // a NaN is in no range
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: %.12g is outside %.12g to %.12g", flag, value, low, high));
}

}  // namespace

absl::StatusOr<Recipe> Recipe::Named(absl::string_view name) {
  if (name == kPaper) return Recipe();
  if (name == kNestrec) return NestrecRecipe();
  return absl::InvalidArgumentError(
      absl::StrCat("--recipe: \"", name, "\" is none of ", absl::StrJoin(Names(), ", ")));
}

std::vector<std::string> Recipe::Names() { return {kNestrec, kPaper}; }

absl::Status Recipe::Check() const {
  NESTREC_RETURN_IF_ERROR(CheckReal("--lr", learning_rate, 1e-9, 10));
  NESTREC_RETURN_IF_ERROR(CheckWhole("--batch-size", batch_size, 1, 1 << 20));
  NESTREC_RETURN_IF_ERROR(CheckWhole("--max-len", max_len, 1, 100'000));
  NESTREC_RETURN_IF_ERROR(CheckWhole("--blocks", blocks, 1, 256));
  NESTREC_RETURN_IF_ERROR(CheckReal("--dropout", dropout, 0, 0.99));
  NESTREC_RETURN_IF_ERROR(CheckReal("--dropout-power", dropout_power, 0, 4));
  NESTREC_RETURN_IF_ERROR(CheckReal("--weight-decay", weight_decay, 0, 10));
  NESTREC_RETURN_IF_ERROR(CheckReal("adam_epsilon", adam_epsilon, 1e-20, 1));  // no flag
  NESTREC_RETURN_IF_ERROR(CheckReal("--clip", clip_norm, 0, 1e9));
  NESTREC_RETURN_IF_ERROR(CheckWhole("--warmup-steps", warmup_steps, 0, 1'000'000'000));
  NESTREC_RETURN_IF_ERROR(CheckWhole("--epochs", epochs, 1, 1'000'000));
  NESTREC_RETURN_IF_ERROR(CheckWhole("--patience", patience, 1, 1'000'000));
  NESTREC_RETURN_IF_ERROR(CheckReal("--r-min", r_min, 0, 0.9999));
  NESTREC_RETURN_IF_ERROR(CheckReal("--r-max", r_max, 0, 0.99999));
  if (r_max <= r_min) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--r-max: %.12g is not above --r-min, %.12g", r_max, r_min));
  }
  if (const auto parsed = ParseMixer(mixer); !parsed.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--mixer: ", parsed.status().message()));
  }
  NESTREC_RETURN_IF_ERROR(CheckWhole("--head-width", head_width, 1, Architecture::kMaxHeadWidth));
  if (const auto parsed = ParseFeedForward(feed_forward); !parsed.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--feed-forward: ", parsed.status().message()));
  }
  NESTREC_RETURN_IF_ERROR(CheckReal("--input-scale", input_scale, 1e-6, 1e6));
  NESTREC_RETURN_IF_ERROR(CheckReal("--projector-scale", projector_scale, 1e-6, 1e6));
  NESTREC_RETURN_IF_ERROR(CheckReal("--branch-scale", branch_scale, 0, 1e6));
  if (projector_start != kUniform && projector_start != kPrincipal) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--projector-start: \"", projector_start, "\" is neither ", kUniform, " nor ", kPrincipal));
  }
  NESTREC_RETURN_IF_ERROR(CheckReal("--temperature", temperature, 1e-6, 1e6));
  NESTREC_RETURN_IF_ERROR(CheckReal("--temperature-power", temperature_power, -4, 4));
  NESTREC_RETURN_IF_ERROR(CheckReal("--distillation", distillation, 0, 1));
  NESTREC_RETURN_IF_ERROR(CheckWhole("--sampled-items", sampled_items, 0, 1'000'000'000));
  for (const double weight : size_weights) {
    NESTREC_RETURN_IF_ERROR(CheckReal("--size-weights", weight, 1e-9, 1e9));
  }
  if (precision != kFloat32 && precision != kBfloat16) {
    return absl::InvalidArgumentError(
        absl::StrCat("--precision: \"", precision, "\" is neither ", kFloat32, " nor ", kBfloat16));
  }
  if (precision == kBfloat16 && !HasBfloat16()) {
    return absl::FailedPreconditionError(
        absl::StrCat("--precision ", kBfloat16, ": this processor does not multiply it ",
                     "(AVX-512 BF16 is needed); use --precision ", kFloat32));
  }
  return CheckFeatureScaling(feature_scaling);
}

absl::Status Recipe::CheckAgainst(const NestedSizes& sizes) const {
  const size_t weights = size_weights.size();
  if (weights == 0 || weights == static_cast<size_t>(sizes.levels())) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("--size-weights: %d weights for the %d sizes %s; give one for each", weights,
                      sizes.levels(), sizes.ToString()));
}

Recipe Recipe::WithoutFeatures() const {
  Recipe recipe = *this;
  const Recipe published;
  recipe.item_residual = true;
  recipe.feature_scaling = published.feature_scaling;
  recipe.projector_scale = published.projector_scale;
  recipe.projector_start = published.projector_start;
  return recipe;
}

Architecture Recipe::MakeArchitecture() const {
  return {.mixer = *ParseMixer(mixer),
          .head_width = head_width,
          .feed_forward = *ParseFeedForward(feed_forward),
          .final_norm = final_norm,
          .input_scale = static_cast<float>(input_scale)};
}

double Recipe::LearningRateAt(int64_t step, int64_t total_steps) const {
  if (step < warmup_steps) {
    return learning_rate * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  }
  const double span = static_cast<double>(std::max<int64_t>(1, total_steps - warmup_steps));
  const double share = std::min(1.0, static_cast<double>(step - warmup_steps) / span);
  return learning_rate * 0.5 * (1.0 + std::cos(M_PI * share));
}

std::vector<double> Recipe::NormalisedSizeWeights() const {
  std::vector<double> weights = size_weights;
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight /= sum;
  return weights;
}

std::vector<double> Recipe::InverseTemperatures(const NestedSizes& sizes) const {
  if (temperature == 1.0 && temperature_power == 0.0) return {};
  std::vector<double> inverse;
  for (const int size : sizes.values()) {
    const double share = static_cast<double>(size) / sizes.max_dim();
    inverse.push_back(1.0 / (temperature * std::pow(share, temperature_power)));
  }
  return inverse;
}

std::string Recipe::ToJson() const {
  Json json;
  json["learning_rate"] = learning_rate;
  json["batch_size"] = batch_size;
  json["max_len"] = max_len;
  json["blocks"] = blocks;
  json["dropout"] = dropout;
  json["weight_decay"] = weight_decay;
  json["adam_epsilon"] = adam_epsilon;
  json["clip_norm"] = clip_norm;
  json["warmup_steps"] = warmup_steps;
  json["epochs"] = epochs;
  json["patience"] = patience;
  json["r_min"] = r_min;
  json["r_max"] = r_max;
  json["windows"] = windows == Windows::kLast ? "last" : "all";
  json["feature_scaling"] = feature_scaling;
  json["item_residual"] = item_residual;
  // What the published recipe does not have is named only where it differs from it.
  const Recipe published;
  const auto add = [&](const char* name, const auto& value, const auto& usual) {
    if (value != usual) json[name] = value;
  };
  add("mixer", mixer, published.mixer);
  if (mixer == MixerName(Mixer::kAttention)) json["head_width"] = head_width;
  add("feed_forward", feed_forward, published.feed_forward);
  add("final_norm", final_norm, published.final_norm);
  add("input_scale", input_scale, published.input_scale);
  add("dropout_power", dropout_power, published.dropout_power);
  add("projector_scale", projector_scale, published.projector_scale);
  add("projector_start", projector_start, published.projector_start);
  add("branch_scale", branch_scale, published.branch_scale);
  add("size_weights", size_weights, published.size_weights);
  add("temperature", temperature, published.temperature);
  add("temperature_power", temperature_power, published.temperature_power);
  add("distillation", distillation, published.distillation);
  add("sampled_items", sampled_items, published.sampled_items);
  add("precision", precision, published.precision);
  json["seed"] = seed;
  return json.dump();
}

}  // namespace nestrec
