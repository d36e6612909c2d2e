#include "cli/experiments.h"

#include <cmath>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "model/architecture.h"
#include "model/dataset.h"

namespace nestrec {
namespace {

using Variants = absl::StatusOr<std::vector<ExperimentVariant>>;

ExperimentVariant Base(const ExperimentBase& base, std::string label) {
  return {.label = std::move(label), .sizes = base.sizes, .recipe = base.recipe, .modalities = {}};
}

// The base with one change of its recipe.
ExperimentVariant With(const ExperimentBase& base, std::string label,
                       const std::function<void(Recipe&)>& change) {
  ExperimentVariant variant = Base(base, std::move(label));
  change(variant.recipe);
  return variant;
}

// The item vectors take the place of content: the features' part of the recipe has no meaning.
ExperimentVariant IdsAlone(const ExperimentBase& base, std::string label) {
  ExperimentVariant variant = Base(base, std::move(label));
  variant.recipe = variant.recipe.WithoutFeatures();
  variant.modalities = {Dataset::kNoFeatures};
  return variant;
}

Variants Loss(const ExperimentBase& base) {
  std::vector<double> widest(static_cast<size_t>(base.sizes.levels()), 1e-9);
  widest.back() = 1;
  return std::vector<ExperimentVariant>{
      Base(base, "loss at every size"),
      With(base, "loss at the widest size alone", [&](Recipe& r) { r.size_weights = widest; })};
}

// A model of one size gets what the size has in the nested model: its temperature, and the dropout
// of its columns, which differs by level there and is their mean here.
Variants Separate(const ExperimentBase& base) {
  std::vector<ExperimentVariant> variants = {Base(base, "nested")};
  const double dim = base.sizes.max_dim();
  double dropped = 0;  // rates of the columns so far, summed, as shares of the widest's
  for (int level = 0; level < base.sizes.levels(); ++level) {
    const int size = base.sizes.end(level);
    dropped += base.sizes.width(level) * std::pow(size / dim, base.recipe.dropout_power);
    ExperimentVariant variant = Base(base, absl::StrCat("dim ", size, " alone"));
    variant.line = "one model per size";
    variant.sizes = *NestedSizes::Create({size});
    variant.recipe.size_weights.clear();
    variant.recipe.dropout *= dropped / size;
    variant.recipe.dropout_power = 0;
    variant.recipe.temperature *= std::pow(size / dim, base.recipe.temperature_power);
    variant.recipe.temperature_power = 0;
    variants.push_back(std::move(variant));
  }
  return variants;
}

Variants Modalities(const ExperimentBase& base) {
  std::vector<ExperimentVariant> variants = {Base(base, absl::StrJoin(base.modalities, " and "))};
  if (base.modalities.size() > 1) {
    for (const std::string& modality : base.modalities) {
      variants.push_back(Base(base, absl::StrCat(modality, " alone")));
      variants.back().modalities = {modality};
    }
  }
  if (base.recipe.item_residual) {
    for (ExperimentVariant variant : std::vector<ExperimentVariant>(variants)) {
      variant.label += ", no item vectors";
      variant.recipe.item_residual = false;
      variants.push_back(std::move(variant));
    }
  }
  variants.push_back(IdsAlone(base, "item vectors alone"));
  return variants;
}

Variants Mixers(const ExperimentBase& base) {
  std::vector<ExperimentVariant> variants;
  for (const Mixer mixer : {Mixer::kLru, Mixer::kGru, Mixer::kAttention}) {
    variants.push_back(With(base, std::string(MixerName(mixer)),
                            [&](Recipe& recipe) { recipe.mixer = std::string(MixerName(mixer)); }));
  }
  return variants;
}

// What docs/mixers.md says of the two; sizes and epochs are the base's, so the widest size is
// comparable. Models of one size.
Variants Peers(const ExperimentBase& base) {
  const int dim = base.sizes.max_dim();
  const Recipe paper;
  std::vector<ExperimentVariant> variants = {Base(base, "nestrec")};
  const auto add = [&](std::string label, const std::function<void(Recipe&)>& change) {
    ExperimentVariant variant = IdsAlone(base, std::move(label));
    Recipe& recipe = variant.recipe;
    recipe.branch_scale = paper.branch_scale;
    recipe.dropout_power = 0;
    recipe.temperature_power = 0;
    recipe.size_weights.clear();
    recipe.distillation = 0;
    recipe.blocks = 2;
    recipe.dropout = 0.5;
    recipe.final_norm = true;
    change(recipe);
    variant.sizes = *NestedSizes::Create({dim});
    variants.push_back(std::move(variant));
  };
  add("SASRec", [&](Recipe& recipe) {
    recipe.mixer = std::string(MixerName(Mixer::kAttention));
    recipe.feed_forward = std::string(FeedForwardName(FeedForward::kRelu));
    recipe.input_scale = std::sqrt(static_cast<double>(dim));
    recipe.weight_decay = 0;
  });
  add("LRURec", [](Recipe& recipe) {
    recipe.mixer = std::string(MixerName(Mixer::kLru));
    recipe.r_min = 0.8;
    recipe.r_max = 0.99;
  });
  return variants;
}

Variants Lengths(const ExperimentBase& base) {
  std::vector<ExperimentVariant> variants;
  for (const int length : {5, 10, 20, 50, 100, 200}) {
    variants.push_back(With(base, absl::StrCat("max_len ", length),
                            [&](Recipe& recipe) { recipe.max_len = length; }));
    variants.back().x = length;
  }
  return variants;
}

Variants Blocks(const ExperimentBase& base) {
  std::vector<ExperimentVariant> variants;
  for (const int blocks : {1, 2, 4, 8}) {
    variants.push_back(With(base, absl::StrCat(blocks, blocks == 1 ? " block" : " blocks"),
                            [&](Recipe& recipe) { recipe.blocks = blocks; }));
    variants.back().x = blocks;
  }
  return variants;
}

Variants Density(const ExperimentBase& base) {
  std::vector<ExperimentVariant> variants;
  for (const double share : {0.125, 0.25, 0.5, 1.0}) {
    variants.push_back(Base(base, absl::StrFormat("%g%% of the events", 100 * share)));
    variants.back().density = share;
    variants.back().x = 100 * share;
  }
  return variants;
}

Variants Sampling(const ExperimentBase& base) {
  std::vector<ExperimentVariant> variants = {
      With(base, "all items", [](Recipe& recipe) { recipe.sampled_items = 0; })};
  for (const int64_t sample : {256, 1024, 4096}) {
    if (sample >= base.items) break;
    variants.push_back(With(base, absl::StrCat(sample, " sampled items"),
                            [&](Recipe& recipe) { recipe.sampled_items = sample; }));
  }
  if (variants.size() == 1) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the data has ", base.items, " items; with no more than 256 there is nothing to sample"));
  }
  return variants;
}

Variants Ingredients(const ExperimentBase& base) {
  const Recipe paper;
  std::vector<ExperimentVariant> variants = {Base(base, "the recipe")};
  const auto add = [&](std::string label, const std::function<void(Recipe&)>& change) {
    variants.push_back(With(base, std::move(label), change));
    if (variants.back().recipe.ToJson() == base.recipe.ToJson()) variants.pop_back();
  };
  add("features as they are", [&](Recipe& r) { r.feature_scaling = paper.feature_scaling; });
  add("no item vectors", [](Recipe& r) { r.item_residual = false; });
  add("projector of the published range", [&](Recipe& r) { r.projector_scale = 1; });
  add("projector starts at random", [&](Recipe& r) { r.projector_start = Recipe::kUniform; });
  add("blocks of the published range", [](Recipe& r) { r.branch_scale = 1; });
  add("the published ring", [&](Recipe& r) { r.r_min = paper.r_min, r.r_max = paper.r_max; });
  add("one temperature for all sizes", [](Recipe& r) { r.temperature_power = 0; });
  add("one dropout for all sizes", [](Recipe& r) { r.dropout_power = 0; });
  add("distillation 0.5", [](Recipe& r) { r.distillation = 0.5; });
  add("one block", [](Recipe& r) { r.blocks = 1; });
  if (base.sizes.levels() > 2) {
    std::vector<double> weights(static_cast<size_t>(base.sizes.levels()), 1);
    for (size_t i = weights.size() / 2; i < weights.size(); ++i) weights[i] = 3;
    add("the wider half of the sizes weighs 3", [&](Recipe& r) { r.size_weights = weights; });
  }
  return variants;
}

Variants Seeds(const ExperimentBase& base) {
  std::vector<ExperimentVariant> variants;
  for (uint64_t i = 0; i < 3; ++i) {
    const uint64_t seed = base.recipe.seed + i;
    variants.push_back(
        With(base, absl::StrCat("seed ", seed), [&](Recipe& recipe) { recipe.seed = seed; }));
  }
  variants.push_back(Base(base, "scores of the three averaged"));
  variants.back().mean_of = {0, 1, 2};
  return variants;
}

Variants Fusion(const ExperimentBase& base) {
  if (base.modalities.size() < 2) {
    return absl::FailedPreconditionError(
        absl::StrCat("the data has ", base.modalities.size(),
                     " modality; fusing takes two or more in its features folder"));
  }
  std::vector<ExperimentVariant> variants = {Base(base, "one linear projector of all")};
  std::vector<size_t> branches;
  for (const std::string& modality : base.modalities) {
    variants.push_back(Base(base, absl::StrCat(modality, " alone")));
    variants.back().modalities = {modality};
    branches.push_back(variants.size() - 1);
  }
  variants.push_back(Base(base, "a branch per modality, scores averaged"));
  variants.back().mean_of = branches;
  return variants;
}

Variants Recipes(const ExperimentBase& base) {
  std::vector<ExperimentVariant> variants = {Base(base, "the recipe")};
  for (const std::string& name : Recipe::Names()) {
    const absl::StatusOr<Recipe> recipe = Recipe::Named(name);
    if (!recipe.ok()) return recipe.status();
    variants.push_back(With(base, absl::StrCat("recipe ", name), [&](Recipe& to) {
      // What a comparison has in common: the time that training takes.
      const Recipe given = to;
      to = *recipe;
      to.epochs = given.epochs;
      to.patience = given.patience;
      to.precision = given.precision;
      to.seed = given.seed;
    }));
    if (variants.back().recipe.ToJson() == base.recipe.ToJson()) variants.pop_back();
  }
  return variants;
}

struct Definition {
  const char* name;
  const char* question;
  const char* x_label;
  Variants (*variants)(const ExperimentBase&);
};

constexpr Definition kDefinitions[] = {
    {"recipes", "What do the published settings reach in the same epochs?", "", Recipes},
    {"ingredients", "What does each ingredient of the recipe give?", "", Ingredients},
    {"seeds", "How much is chance?", "", Seeds},
    {"loss", "What does the loss at every size cost the widest, and give the others?", "", Loss},
    {"separate", "Is a nested model as good as models trained for one size each?", "", Separate},
    {"modalities", "What does each modality give?", "", Modalities},
    {"fusion", "One projector of all modalities, or a branch for each?", "", Fusion},
    {"mixers", "What does the mixer of a block give?", "", Mixers},
    {"peers", "Against SASRec and LRURec, which know items by learned vectors alone?", "", Peers},
    {"lengths", "How much history is worth having?", "items of history", Lengths},
    {"blocks", "How many blocks?", "blocks", Blocks},
    {"density", "How does quality depend on how much there is to learn from?",
     "% of the training events", Density},
    {"sampling", "What does a sampled softmax cost?", "", Sampling},
};

}  // namespace

std::vector<std::pair<std::string, std::string>> ExperimentQuestions() {
  std::vector<std::pair<std::string, std::string>> questions;
  for (const Definition& definition : kDefinitions) {
    questions.emplace_back(definition.name, definition.question);
  }
  return questions;
}

absl::StatusOr<Experiment> MakeExperiment(absl::string_view name, const ExperimentBase& base) {
  std::vector<std::string> names;
  for (const Definition& definition : kDefinitions) {
    names.emplace_back(definition.name);
    if (name != definition.name) continue;
    Variants variants = definition.variants(base);
    if (!variants.ok()) return variants.status();
    return Experiment{.name = definition.name,
                      .question = definition.question,
                      .x_label = definition.x_label,
                      .variants = *std::move(variants)};
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", name, "\" is none of the experiments ", absl::StrJoin(names, ", ")));
}

}  // namespace nestrec
