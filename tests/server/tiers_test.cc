#include "server/tiers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

std::string Defaults(absl::string_view sizes) {
  const auto table = TierTable::Create({}, *NestedSizes::Parse(sizes));
  return absl::StrJoin(table->tiers(), " ", [](std::string* out, const Tier& tier) {
    absl::StrAppend(out, tier.name, "=", tier.dim);
  });
}

TEST(TierTable, DefaultsAreTheWidthItsQuarterAndItsSixteenth) {
  EXPECT_EQ(Defaults("8,16,32,64,128,256,512,1024"), "gold=1024 silver=256 bronze=64");
  EXPECT_EQ(Defaults("8,100,1000"), "gold=1000 silver=100 bronze=8");
}

TEST(TierTable, DefaultsCollapseForSmallModels) {
  EXPECT_EQ(Defaults("64"), "gold=64");
  EXPECT_EQ(Defaults("8,16"), "gold=16");
  EXPECT_EQ(Defaults("8,16,32"), "gold=32 silver=8");
  EXPECT_EQ(Defaults("8,1024"), "gold=1024 silver=8");  // bronze would be silver
}

TEST(TierTable, DefaultTierIsGoldElseTheFirst) {
  const NestedSizes sizes = *NestedSizes::Parse("8,16");
  const Tier a{.name = "a", .dim = 8, .index = {}};
  const Tier gold{.name = "gold", .dim = 16, .index = {}};
  EXPECT_EQ(TierTable::Create({}, sizes)->default_tier().name, "gold");
  EXPECT_EQ(TierTable::Create({.tiers = {a, gold}, .default_tier = ""}, sizes)->default_tier().name,
            "gold");
  EXPECT_EQ(TierTable::Create({.tiers = {a}, .default_tier = ""}, sizes)->default_tier().name, "a");
  EXPECT_EQ(
      TierTable::Create({.tiers = {a, gold}, .default_tier = "a"}, sizes)->default_tier().name,
      "a");
}

TEST(TierTable, RefusesADimThatTheModelHasNot) {
  const auto table =
      TierTable::Create({.tiers = {{.name = "a", .dim = 64, .index = {}}}, .default_tier = ""},
                        *NestedSizes::Parse("8,16"));
  EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(table.status().message(), HasSubstr("tier \"a\" has dim 64"));
  EXPECT_THAT(table.status().message(), HasSubstr("8,16"));
}

TEST(TierTable, DefaultsMayNarrowToAQuarterOfTheirWidth) {
  const auto ranges = [](absl::string_view sizes) {
    const auto table = TierTable::Create({}, *NestedSizes::Parse(sizes));
    return absl::StrJoin(table->tiers(), " ", [](std::string* out, const Tier& tier) {
      absl::StrAppend(out, tier.name, "=", tier.narrowest(), "-", tier.dim);
    });
  };
  EXPECT_EQ(ranges("8,16,32,64,128,256,512,1024"), "gold=256-1024 silver=64-256 bronze=16-64");
  EXPECT_EQ(ranges("8,100,1000"), "gold=100-1000 silver=8-100 bronze=8-8");
  EXPECT_EQ(ranges("64"), "gold=64-64");
}

TEST(TierTable, RefusesAMinDimThatTheModelHasNotOrThatIsAboveTheDim) {
  for (const int min_dim : {-8, 12, 16}) {
    const auto table = TierTable::Create(
        {.tiers = {{.name = "a", .dim = 8, .index = {}, .min_dim = min_dim}}, .default_tier = ""},
        *NestedSizes::Parse("8,16"));
    EXPECT_EQ(table.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(table.status().message(),
                HasSubstr(absl::StrCat("tier \"a\" has min_dim ", min_dim)));
    EXPECT_THAT(table.status().message(), HasSubstr("8,16"));
  }
}

TEST(TierTable, RefusesADefaultThatIsNoTier) {
  const auto table =
      TierTable::Create({.tiers = {}, .default_tier = "platinum"}, *NestedSizes::Parse("8,16"));
  EXPECT_THAT(table.status().message(), HasSubstr("\"platinum\"; the tiers are gold"));
  const auto named = TierTable::Create(
      {.tiers = {}, .default_tier = "platinum", .source = "t.textproto"}, *NestedSizes::Parse("8"));
  EXPECT_THAT(named.status().message(), HasSubstr("t.textproto: default_tier"));
}

}  // namespace
}  // namespace nestrec
