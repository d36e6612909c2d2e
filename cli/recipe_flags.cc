#include "cli/recipe_flags.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "cli/flags.h"

namespace nestrec {

template <typename Field>
CLI::Option* RecipeFlags::Add(CLI::App& command, const std::string& flag, Field Recipe::*field,
                              const std::string& help) {
  CLI::Option* option = command.add_option(flag, given_.*field, help)->group("Recipe");
  changes_.push_back([this, option, field](Recipe& recipe) {
    if (option->count() > 0) recipe.*field = given_.*field;
  });
  return option;
}

void RecipeFlags::AddSwitch(CLI::App& command, const std::string& flag, bool Recipe::*field,
                            const std::string& help) {
  const std::string negative = absl::StrCat("--no-", absl::StripPrefix(flag, "--"));
  CLI::Option* option =
      command.add_flag(absl::StrCat(flag, ",!", negative), given_.*field, help)->group("Recipe");
  changes_.push_back([this, option, field](Recipe& recipe) {
    if (option->count() > 0) recipe.*field = given_.*field;
  });
}

void RecipeFlags::AddTo(CLI::App& command) {
  // The help shows the defaults of the recipe that is used when none is named.
  if (absl::StatusOr<Recipe> usual = Recipe::Named(name_); usual.ok()) given_ = *usual;
  command
      .add_option("--recipe", name_,
                  "nestrec, or paper: the published settings; the flags below change it")
      ->group("Recipe")
      ->check(CLI::IsMember(Recipe::Names()))
      ->capture_default_str();
  AddSchedule(command);
  AddNetwork(command);
  AddLoss(command);
}

void RecipeFlags::AddSchedule(CLI::App& command) {
  Add(command, "--epochs", &Recipe::epochs, "Most epochs, and the length of the cosine schedule")
      ->capture_default_str();
  Add(command, "--patience", &Recipe::patience,
      "Epochs without a better val NDCG@10 at the widest size")
      ->capture_default_str();
  Add(command, "--batch-size", &Recipe::batch_size, "Sequences per step, of all processes together")
      ->capture_default_str();
  Add(command, "--lr", &Recipe::learning_rate, "Learning rate after warm-up")
      ->capture_default_str();
  Add(command, "--warmup-steps", &Recipe::warmup_steps, "Steps of linear warm-up")
      ->capture_default_str();
  Add(command, "--weight-decay", &Recipe::weight_decay, "AdamW's decay, biases exempt")
      ->capture_default_str();
  Add(command, "--clip", &Recipe::clip_norm, "Global gradient norm to clip at; 0: none")
      ->capture_default_str();
  Add(command, "--max-len", &Recipe::max_len, "Items of a history that count")
      ->capture_default_str();
  CLI::Option* windows =
      command
          .add_option("--windows", windows_, "Training part of a long user: last window, or all")
          ->group("Recipe")
          ->check(CLI::IsMember({"last", "all"}))
          ->capture_default_str();
  changes_.push_back([this, windows](Recipe& recipe) {
    if (windows->count() > 0) recipe.windows = windows_ == "all" ? Windows::kAll : Windows::kLast;
  });
  Add(command, "--precision", &Recipe::precision,
      "Operands of the matrix products in training: float32 or bfloat16")
      ->capture_default_str();
  Add(command, "--seed", &Recipe::seed, "Seed of weights, order and dropout")
      ->check(WholeNumber(0, UINT64_MAX))
      ->capture_default_str();
}

void RecipeFlags::AddNetwork(CLI::App& command) {
  Add(command, "--blocks", &Recipe::blocks, "Blocks of mixer and feed-forward")
      ->capture_default_str();
  Add(command, "--mixer", &Recipe::mixer,
      "What moves information along a history: lru, gru or attention")
      ->check(CLI::IsMember({"lru", "gru", "attention"}))
      ->capture_default_str();
  Add(command, "--head-width", &Recipe::head_width,
      "Columns of an attention head; a narrower level is one head")
      ->capture_default_str();
  Add(command, "--feed-forward", &Recipe::feed_forward,
      "gated: W2(SiLU(Wg u) * W1 u); relu: W2(ReLU(W1 u))")
      ->check(CLI::IsMember({"gated", "relu"}))
      ->capture_default_str();
  AddSwitch(command, "--final-norm", &Recipe::final_norm,
            "Layer norm after the last block, or none");
  Add(command, "--input-scale", &Recipe::input_scale,
      "Times the item embeddings where they enter the first block")
      ->capture_default_str();
  Add(command, "--dropout", &Recipe::dropout,
      "Dropout on input, mixer (attention's weights too) and feed-forward")
      ->capture_default_str();
  Add(command, "--dropout-power", &Recipe::dropout_power,
      "Columns of size s are dropped with (s / dim)^power of that: narrow sizes less")
      ->capture_default_str();
  Add(command, "--r-min", &Recipe::r_min, "Ring initialisation of an LRU: smallest |lambda|")
      ->capture_default_str();
  Add(command, "--r-max", &Recipe::r_max, "Ring initialisation of an LRU: largest |lambda|")
      ->capture_default_str();
  Add(command, "--feature-scaling", &Recipe::feature_scaling,
      "none; sqrt_width: rows to norm sqrt(width); whiten: by PCA")
      ->check(CLI::IsMember({"none", "sqrt_width", "whiten"}))
      ->capture_default_str();
  AddSwitch(command, "--item-residual", &Recipe::item_residual,
            "Learn a vector per item beside its content, or do not");
  Add(command, "--projector-scale", &Recipe::projector_scale,
      "Times the published range of the projector's initial weights")
      ->capture_default_str();
  Add(command, "--projector-start", &Recipe::projector_start,
      "uniform, or principal: at the features' principal directions")
      ->capture_default_str();
  Add(command, "--branch-scale", &Recipe::branch_scale,
      "Times the published range of the initial weights that write into the residual stream (the "
      "mixer's last, W2); small: blocks begin as the identity")
      ->capture_default_str();
}

void RecipeFlags::AddLoss(CLI::App& command) {
  Add(command, "--size-weights", &Recipe::size_weights,
      "How much each size counts in the loss, narrow to wide (default: all alike)")
      ->delimiter(',');
  Add(command, "--temperature", &Recipe::temperature,
      "In the loss, scores at size s are divided by this times (s / dim)^power")
      ->capture_default_str();
  Add(command, "--temperature-power", &Recipe::temperature_power, "That power")
      ->capture_default_str();
  Add(command, "--distillation", &Recipe::distillation,
      "Share of the widest size's softmax in the target of the narrower ones")
      ->capture_default_str();
  Add(command, "--sampled-items", &Recipe::sampled_items,
      "Softmax over a sample of about so many items, with logQ correction; 0: over all")
      ->capture_default_str();
}

absl::StatusOr<Recipe> RecipeFlags::Read() const {
  NESTREC_ASSIGN_OR_RETURN(Recipe recipe, Recipe::Named(name_));
  for (const auto& change : changes_) change(recipe);
  NESTREC_RETURN_IF_ERROR(UsageError(recipe.Check()));
  return recipe;
}

}  // namespace nestrec
