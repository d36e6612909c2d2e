#include "model/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace nestrec {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(RecipeTest, EveryNamedRecipePassesItsOwnChecks) {
  for (const std::string& name : Recipe::Names()) {
    const absl::StatusOr<Recipe> recipe = Recipe::Named(name);
    ASSERT_TRUE(recipe.ok()) << name;
    EXPECT_TRUE(recipe->Check().ok()) << name << ": " << recipe->Check();
  }
}

TEST(RecipeTest, PaperIsThePublishedOne) {
  const Recipe paper = *Recipe::Named("paper");
  EXPECT_EQ(paper.learning_rate, 1e-4);
  EXPECT_EQ(paper.batch_size, 32);
  EXPECT_EQ(paper.epochs, 500);
  EXPECT_EQ(paper.patience, 10);
  EXPECT_EQ(paper.blocks, 1);
  EXPECT_EQ(paper.dropout, 0.6);
  EXPECT_EQ(paper.r_max, 0.1);
  EXPECT_FALSE(paper.item_residual);
  EXPECT_EQ(paper.ToJson(), Recipe().ToJson());
}

TEST(RecipeTest, RefusesANameThatIsNone) {
  const absl::Status status = Recipe::Named("papr").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("\"papr\" is none of nestrec, paper"));
}

TEST(RecipeTest, LearningRateRisesThenFallsToNothing) {
  Recipe recipe;
  recipe.learning_rate = 1;
  recipe.warmup_steps = 10;
  EXPECT_DOUBLE_EQ(recipe.LearningRateAt(0, 110), 0.1);
  EXPECT_DOUBLE_EQ(recipe.LearningRateAt(9, 110), 1);
  EXPECT_DOUBLE_EQ(recipe.LearningRateAt(10, 110), 1);
  EXPECT_NEAR(recipe.LearningRateAt(60, 110), 0.5, 1e-12);
  EXPECT_NEAR(recipe.LearningRateAt(110, 110), 0, 1e-12);
  EXPECT_NEAR(recipe.LearningRateAt(999, 110), 0, 1e-12);
}

TEST(RecipeTest, NarrowSizesAreSharpenedByTheTemperaturePower) {
  const NestedSizes sizes = *NestedSizes::Create({4, 16, 64});
  Recipe recipe;
  EXPECT_THAT(recipe.InverseTemperatures(sizes), IsEmpty());
  recipe.temperature_power = 0.5;
  EXPECT_THAT(recipe.InverseTemperatures(sizes), ElementsAre(4, 2, 1));
  recipe.temperature = 2;
  EXPECT_THAT(recipe.InverseTemperatures(sizes), ElementsAre(2, 1, 0.5));
}

TEST(RecipeTest, SizeWeightsAddUpToOneAndFitTheSizes) {
  const NestedSizes sizes = *NestedSizes::Create({4, 16, 64});
  Recipe recipe;
  EXPECT_TRUE(recipe.CheckAgainst(sizes).ok());
  recipe.size_weights = {1, 2, 1};
  EXPECT_TRUE(recipe.CheckAgainst(sizes).ok());
  EXPECT_THAT(recipe.NormalisedSizeWeights(), ElementsAre(0.25, 0.5, 0.25));
  recipe.size_weights = {1, 2};
  EXPECT_THAT(std::string(recipe.CheckAgainst(sizes).message()),
              HasSubstr("2 weights for the 3 sizes 4,16,64"));
}

TEST(RecipeTest, NamesTheFlagOfAFieldOutsideItsLimits) {
  Recipe recipe;
  recipe.dropout = std::nan("");
  EXPECT_THAT(std::string(recipe.Check().message()), HasSubstr("--dropout: nan is outside 0"));
  recipe = Recipe();
  recipe.r_min = 0.5;
  EXPECT_THAT(std::string(recipe.Check().message()), HasSubstr("--r-max: 0.1 is not above"));
}

TEST(RecipeTest, TheJsonNamesUnpublishedFieldsOnlyWhereTheyDiffer) {
  Recipe recipe;
  EXPECT_EQ(recipe.ToJson().find("distillation"), std::string::npos);
  recipe.distillation = 0.5;
  EXPECT_THAT(recipe.ToJson(), HasSubstr("\"distillation\":0.5"));
}

TEST(RecipeTest, RefusesPartsThatNoNetworkHas) {
  const auto message = [](auto&& change) {
    Recipe recipe;
    change(recipe);
    return std::string(recipe.Check().message());
  };
  EXPECT_THAT(message([](Recipe& r) { r.mixer = "rnn"; }),
              HasSubstr("--mixer: 'rnn' is unknown; use lru, gru or attention"));
  EXPECT_THAT(message([](Recipe& r) { r.feed_forward = "tanh"; }), HasSubstr("--feed-forward"));
  EXPECT_THAT(message([](Recipe& r) { r.head_width = 0; }), HasSubstr("--head-width: 0"));
  EXPECT_THAT(message([](Recipe& r) { r.input_scale = 0; }), HasSubstr("--input-scale: 0"));
}

TEST(RecipeTest, SaysOfTheArchitectureOnlyWhatIsNotPublished) {
  EXPECT_THAT(Recipe().ToJson(), testing::Not(HasSubstr("mixer")));
  Recipe recipe;
  recipe.mixer = "attention";
  recipe.final_norm = true;
  EXPECT_THAT(recipe.ToJson(), HasSubstr("\"mixer\":\"attention\",\"head_width\":64"));
  EXPECT_THAT(recipe.ToJson(), HasSubstr("\"final_norm\":true"));
  const Architecture architecture = recipe.MakeArchitecture();
  EXPECT_EQ(architecture.mixer, Mixer::kAttention);
  EXPECT_TRUE(architecture.final_norm);
  EXPECT_EQ(architecture.feed_forward, FeedForward::kGated);
}

TEST(RecipeTest, WithoutFeaturesNothingIsSaidOfThem) {
  const Recipe recipe = Recipe::Named("nestrec")->WithoutFeatures();
  EXPECT_TRUE(recipe.item_residual);
  EXPECT_EQ(recipe.feature_scaling, "none");
  EXPECT_THAT(recipe.ToJson(), testing::Not(HasSubstr("projector")));
}

}  // namespace
}  // namespace nestrec
