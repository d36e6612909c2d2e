#include "server/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "server/status_details.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Policy : public ::testing::Test {
 protected:
  WidthDecision Choose(const WidthRequest& request, const WidthConditions& conditions = {}) const {
    const absl::StatusOr<WidthDecision> decision =
        ChooseWidth(request, tiers_, {.sizes = &sizes_, .quality = quality_}, conditions);
    EXPECT_TRUE(decision.ok()) << decision.status();
    return decision.value_or(WidthDecision{});
  }
  std::vector<FieldViolation> Violations(const WidthRequest& request) const {
    return FieldViolationsOf(
        ChooseWidth(request, tiers_, {.sizes = &sizes_, .quality = quality_}, {}).status());
  }

  NestedSizes sizes_ = *NestedSizes::Parse("8,16,32,64,128");
  std::vector<double> quality_ = {0.5, 0.7, 0.85, 0.95, 1.0};
  TierTable tiers_ = *TierTable::Create(
      {.tiers = {{.name = "fixed", .dim = 8, .index = {.factory = "HNSW16"}},
                 {.name = "middle", .dim = 64, .index = {.factory = "SQ8"}, .min_dim = 16},
                 {.name = "best", .dim = 128, .index = {}, .min_dim = 8}},
       .default_tier = "best"},
      sizes_);
  // 1, 2, 4, 8, 16 ms.
  const std::vector<absl::Duration> costs_ = {absl::Milliseconds(1), absl::Milliseconds(2),
                                              absl::Milliseconds(4), absl::Milliseconds(8),
                                              absl::Milliseconds(16)};
  const std::vector<absl::Duration> usual_ = {absl::Milliseconds(0.5), absl::Milliseconds(1),
                                              absl::Milliseconds(2), absl::Milliseconds(4),
                                              absl::Milliseconds(8)};
};

TEST_F(Policy, ServesAnExplicitDimExactly) {
  const WidthDecision decision = Choose({.dim = 16});
  EXPECT_EQ(decision.dim, 16);
  EXPECT_EQ(decision.levels, 2);
  EXPECT_EQ(decision.tier, "");
  EXPECT_EQ(decision.index, IndexSpec{});
  EXPECT_EQ(decision.why, WidthReason::kExplicit);
}

TEST_F(Policy, AnExplicitDimIsChangedByNothing) {
  for (const int dim : sizes_.values()) {
    const WidthDecision decision = Choose({.dim = dim, .latency_budget = absl::Milliseconds(1)},
                                          {.spent = absl::Seconds(1),
                                           .deadline_left = absl::ZeroDuration(),
                                           .narrowing = 5,
                                           .costs = costs_});
    EXPECT_EQ(decision.dim, dim);
    EXPECT_EQ(decision.most_levels, decision.levels);
    EXPECT_EQ(decision.why, WidthReason::kExplicit);
  }
}

TEST_F(Policy, ServesATierAtItsWidestWithItsIndex) {
  const WidthDecision decision = Choose({.tier = "middle"});
  EXPECT_EQ(decision.dim, 64);
  EXPECT_EQ(decision.levels, 4);
  EXPECT_EQ(decision.tier, "middle");
  EXPECT_EQ(decision.index.factory, "SQ8");
  EXPECT_EQ(decision.why, WidthReason::kTier);
}

TEST_F(Policy, ServesTheDefaultTierOtherwise) {
  const WidthDecision decision = Choose({});
  EXPECT_EQ(decision.dim, 128);
  EXPECT_EQ(decision.levels, 5);
  EXPECT_EQ(decision.tier, "best");
  EXPECT_EQ(decision.why, WidthReason::kDefault);
}

TEST_F(Policy, RefusesADimThatIsNotASize) {
  for (const int dim : {-1, 0, 7, 9, 256, 1 << 30}) {
    const auto violations = Violations({.dim = dim});
    ASSERT_EQ(violations.size(), 1u);
    EXPECT_EQ(violations[0].field, "dim");
    EXPECT_THAT(violations[0].description, HasSubstr("8,16,32,64,128"));
  }
}

TEST_F(Policy, RefusesAnUnknownTier) {
  for (const char* tier : {"", "Best", "platinum"}) {
    const auto violations = Violations({.tier = tier});
    ASSERT_EQ(violations.size(), 1u);
    EXPECT_EQ(violations[0].field, "tier");
    EXPECT_THAT(violations[0].description, HasSubstr("fixed, middle, best"));
  }
}

TEST_F(Policy, MinQualityIsServedByTheNarrowestThatKeepsIt) {
  struct Row {
    double quality;
    int dim;
    WidthReason why;
  };
  // "middle" has 16 to 64: 0.7, 0.85, 0.95.
  for (const Row& row : {Row{0.0, 16, WidthReason::kQuality}, Row{0.7, 16, WidthReason::kQuality},
                         Row{0.71, 32, WidthReason::kQuality}, Row{0.85, 32, WidthReason::kQuality},
                         Row{0.86, 64, WidthReason::kQuality}, Row{0.95, 64, WidthReason::kQuality},
                         Row{0.96, 64, WidthReason::kTier}, Row{1.0, 64, WidthReason::kTier}}) {
    const WidthDecision decision = Choose({.tier = "middle", .min_quality = row.quality});
    EXPECT_EQ(decision.dim, row.dim) << row.quality;
    EXPECT_EQ(decision.why, row.why) << row.quality;
  }
}

TEST_F(Policy, MinQualityTakesTheNarrowestWhereQualityDoesNotGrowWithTheWidth) {
  quality_ = {0.5, 0.97, 0.9, 1.02, 1.0};
  EXPECT_EQ(Choose({.min_quality = 0.95}).dim, 16);
  EXPECT_EQ(Choose({.min_quality = 1.0}).dim, 64);
}

TEST_F(Policy, MinQualityNeedsMetricsAndNoDim) {
  EXPECT_EQ(Violations({.dim = 8, .min_quality = 0.5}).at(0).field, "min_quality");
  quality_ = {};
  EXPECT_THAT(Violations({.min_quality = 0.5}).at(0).description, HasSubstr("never evaluated"));
}

TEST_F(Policy, LoadTakesWidthsOffTheWidestOfTheTierDownToItsNarrowest) {
  std::vector<int> best;
  std::vector<int> middle;
  for (int narrowing = 0; narrowing <= 6; ++narrowing) {
    const WidthDecision decision = Choose({}, {.narrowing = narrowing});
    EXPECT_EQ(decision.why, narrowing == 0 ? WidthReason::kDefault : WidthReason::kLoad);
    best.push_back(decision.dim);
    middle.push_back(Choose({.tier = "middle"}, {.narrowing = narrowing}).dim);
    EXPECT_EQ(Choose({.tier = "fixed"}, {.narrowing = narrowing}).dim, 8);
    EXPECT_EQ(Choose({.tier = "fixed"}, {.narrowing = narrowing}).why, WidthReason::kTier);
  }
  EXPECT_THAT(best, ElementsAre(128, 64, 32, 16, 8, 8, 8));
  EXPECT_THAT(middle, ElementsAre(64, 32, 16, 16, 16, 16, 16));
}

TEST_F(Policy, LoadLeavesAloneWhatIsNarrowerAnyway) {
  const WidthDecision decision = Choose({.tier = "middle", .min_quality = 0.7}, {.narrowing = 1});
  EXPECT_EQ(decision.dim, 16);
  EXPECT_EQ(decision.why, WidthReason::kQuality);
}

TEST_F(Policy, TheWidestThatFitsTheBudgetIsServed) {
  struct Row {
    int budget_ms;
    int dim;
    WidthReason why;
  };
  for (const Row& row : {Row{100, 64, WidthReason::kTier}, Row{8, 64, WidthReason::kTier},
                         Row{7, 32, WidthReason::kBudget}, Row{4, 32, WidthReason::kBudget},
                         Row{3, 16, WidthReason::kBudget}, Row{1, 16, WidthReason::kBudget},
                         Row{0, 16, WidthReason::kBudget}}) {
    const WidthDecision decision = Choose(
        {.tier = "middle", .latency_budget = absl::Milliseconds(row.budget_ms)}, {.costs = costs_});
    EXPECT_EQ(decision.dim, row.dim) << row.budget_ms;
    EXPECT_EQ(decision.why, row.why) << row.budget_ms;
  }
}

TEST_F(Policy, TheDeadlineBoundsEveryTierAndTheReasonIsWhatEndsFirst) {
  EXPECT_EQ(Choose({}, {.deadline_left = absl::Milliseconds(5), .costs = costs_}).dim, 32);
  EXPECT_EQ(Choose({}, {.deadline_left = absl::Milliseconds(5), .costs = costs_}).why,
            WidthReason::kDeadline);
  const WidthRequest request = {.latency_budget = absl::Milliseconds(10)};
  // 7 ms of the budget are gone.
  const WidthConditions late = {
      .spent = absl::Milliseconds(7), .deadline_left = absl::Milliseconds(4), .costs = costs_};
  EXPECT_EQ(Choose(request, late).dim, 16);
  EXPECT_EQ(Choose(request, late).why, WidthReason::kBudget);
  const WidthConditions later = {
      .spent = absl::Milliseconds(7), .deadline_left = absl::Milliseconds(2), .costs = costs_};
  EXPECT_EQ(Choose(request, later).why, WidthReason::kDeadline);
}

TEST_F(Policy, EveryWidthFitsWhereCostsAreUnknown) {
  const WidthDecision decision = Choose({.latency_budget = absl::Milliseconds(1)});
  EXPECT_EQ(decision.dim, 128);
  EXPECT_EQ(decision.why, WidthReason::kDefault);
}

TEST_F(Policy, WhatUsuallyFitsMayBeTriedLevelByLevel) {
  const WidthDecision decision =
      Choose({.latency_budget = absl::Milliseconds(5)}, {.costs = costs_, .usual_costs = usual_});
  EXPECT_EQ(decision.levels, 3);
  EXPECT_EQ(decision.why, WidthReason::kBudget);
  EXPECT_EQ(decision.most_levels, 4);
  EXPECT_EQ(decision.most_why, WidthReason::kBudget);
  const WidthDecision roomy =
      Choose({.latency_budget = absl::Milliseconds(10)}, {.costs = costs_, .usual_costs = usual_});
  EXPECT_EQ(roomy.levels, 4);
  EXPECT_EQ(roomy.most_levels, 5);
  EXPECT_EQ(roomy.most_why, WidthReason::kDefault);
}

TEST_F(Policy, WhatIsHeldBackIsNeitherServedNorTried) {
  const WidthConditions conditions = {.costs = costs_, .usual_costs = usual_, .held_levels = 2};
  const WidthDecision decision = Choose({.latency_budget = absl::Milliseconds(5)}, conditions);
  EXPECT_EQ(decision.levels, 2);
  EXPECT_EQ(decision.most_levels, 2);
  EXPECT_EQ(decision.why, WidthReason::kBudget);
  EXPECT_EQ(decision.most_why, WidthReason::kBudget);
  EXPECT_EQ(Choose({}, {.deadline_left = absl::Milliseconds(5), .held_levels = 1}).why,
            WidthReason::kDeadline);
  EXPECT_EQ(Choose({.tier = "middle", .latency_budget = absl::Seconds(1)},
                   {.costs = costs_, .held_levels = 1})
                .dim,
            16);
  EXPECT_EQ(Choose({.dim = 128}, conditions).dim, 128);
}

TEST_F(Policy, SaysWhatTimeAllowsWhateverLoadQualityAndTheHoldSay) {
  for (const WidthConditions& conditions :
       {WidthConditions{.costs = costs_, .usual_costs = usual_},
        WidthConditions{.narrowing = 4, .costs = costs_, .usual_costs = usual_},
        WidthConditions{.costs = costs_, .usual_costs = usual_, .held_levels = 1}}) {
    for (const auto quality : {std::optional<double>(), std::optional<double>(0.5)}) {
      const WidthDecision decision =
          Choose({.latency_budget = absl::Milliseconds(4.5), .min_quality = quality}, conditions);
      EXPECT_EQ(decision.fit.may, 4);
      EXPECT_EQ(decision.fit.well, 3);
      EXPECT_EQ(decision.fit.widest, 5);
    }
  }
  EXPECT_EQ(Choose({.dim = 8}).fit.widest, 0);
}

// Requests and conditions at random, and what must hold of every decision.
class PolicyProperties : public Policy {
 protected:
  struct Draw {
    WidthRequest request;
    WidthConditions conditions;
  };
  Draw Next() {
    Draw draw;
    if (const int64_t tier = random_.Index(4); tier < 3) {
      draw.request.tier = tiers_.tiers()[static_cast<size_t>(tier)].name;
    }
    if (random_.Index(2) == 0) draw.request.min_quality = random_.Uniform(0, 1.1);
    if (random_.Index(2) == 0) draw.request.latency_budget = Milliseconds(20);
    draw.conditions.spent = Milliseconds(5);
    if (random_.Index(2) == 0) draw.conditions.deadline_left = Milliseconds(20);
    draw.conditions.narrowing = static_cast<int>(random_.Index(6));
    if (random_.Index(4) > 0) {
      costs.clear();
      usual.clear();
      absl::Duration total = absl::ZeroDuration();
      for (int level = 0; level < sizes_.levels(); ++level) {
        total += Milliseconds(4);
        costs.push_back(total);
        usual.push_back(total / 2);
      }
      draw.conditions.costs = costs;
      draw.conditions.usual_costs = usual;
    }
    return draw;
  }
  absl::Duration Milliseconds(double most) {
    return random_.Uniform(0, most) * absl::Milliseconds(1);
  }
  const Tier& TierOf(const Draw& draw) const {
    return draw.request.tier.has_value() ? *tiers_.Find(*draw.request.tier) : tiers_.default_tier();
  }

  std::vector<absl::Duration> costs, usual;
  Random random_{5};
};

TEST_F(PolicyProperties, ADecisionNeverLeavesTheRangeOfItsTier) {
  for (int i = 0; i < 20'000; ++i) {
    const Draw draw = Next();
    const WidthDecision decision = Choose(draw.request, draw.conditions);
    const Tier& tier = TierOf(draw);
    ASSERT_EQ(decision.tier, tier.name);
    ASSERT_GE(decision.dim, tier.narrowest());
    ASSERT_LE(decision.dim, tier.dim);
    ASSERT_EQ(sizes_.end(decision.levels - 1), decision.dim);
    ASSERT_GE(decision.most_levels, decision.levels);
    ASSERT_LE(sizes_.end(decision.most_levels - 1), tier.dim);
    ASSERT_NE(decision.why, WidthReason::kExplicit);
  }
}

TEST_F(PolicyProperties, MoreTimeNeverMakesItNarrowerNorMoreLoadWider) {
  for (int i = 0; i < 20'000; ++i) {
    const Draw draw = Next();
    const int levels = Choose(draw.request, draw.conditions).levels;
    Draw more = draw;
    if (more.request.latency_budget.has_value()) *more.request.latency_budget += Milliseconds(10);
    more.conditions.deadline_left += Milliseconds(10);
    more.conditions.spent = more.conditions.spent / 2;
    ASSERT_GE(Choose(more.request, more.conditions).levels, levels);
    Draw loaded = draw;
    loaded.conditions.narrowing += 1;
    ASSERT_LE(Choose(loaded.request, loaded.conditions).levels, levels);
  }
}

TEST_F(PolicyProperties, WhatIsChosenFitsUnlessItIsTheNarrowest) {
  for (int i = 0; i < 20'000; ++i) {
    const Draw draw = Next();
    const WidthDecision decision = Choose(draw.request, draw.conditions);
    if (draw.conditions.costs.empty() || decision.dim == TierOf(draw).narrowest()) continue;
    const absl::Duration cost = costs[static_cast<size_t>(decision.levels) - 1];
    ASSERT_LE(cost, draw.conditions.deadline_left);
    ASSERT_LE(cost + draw.conditions.spent,
              draw.request.latency_budget.value_or(absl::InfiniteDuration()));
  }
}

}  // namespace
}  // namespace nestrec
