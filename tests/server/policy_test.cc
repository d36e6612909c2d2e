#include "server/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/status_details.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

class Policy : public ::testing::Test {
 protected:
  NestedSizes sizes_ = *NestedSizes::Parse("8,16,32");
  TierTable tiers_ =
      *TierTable::Create({.tiers = {{.name = "fast", .dim = 8, .index = {.factory = "HNSW16"}},
                                    {.name = "best", .dim = 32, .index = {}}},
                          .default_tier = "best"},
                         sizes_);
};

TEST_F(Policy, ServesAnExplicitDimExactly) {
  const auto decision = ChooseWidth({.dim = 8}, tiers_, sizes_);
  ASSERT_TRUE(decision.ok()) << decision.status();
  EXPECT_EQ(decision->dim, 8);
  EXPECT_EQ(decision->levels, 1);
  EXPECT_EQ(decision->tier, "");
  EXPECT_EQ(decision->index, IndexSpec{});
  EXPECT_EQ(decision->why, WidthReason::kExplicit);
}

TEST_F(Policy, ServesATierAtItsDimWithItsIndex) {
  const auto decision = ChooseWidth({.tier = "fast"}, tiers_, sizes_);
  ASSERT_TRUE(decision.ok()) << decision.status();
  EXPECT_EQ(decision->dim, 8);
  EXPECT_EQ(decision->tier, "fast");
  EXPECT_EQ(decision->index.factory, "HNSW16");
  EXPECT_EQ(decision->why, WidthReason::kTier);
}

TEST_F(Policy, ServesTheDefaultTierOtherwise) {
  const auto decision = ChooseWidth({}, tiers_, sizes_);
  ASSERT_TRUE(decision.ok()) << decision.status();
  EXPECT_EQ(decision->dim, 32);
  EXPECT_EQ(decision->levels, 3);
  EXPECT_EQ(decision->tier, "best");
  EXPECT_EQ(decision->why, WidthReason::kDefault);
}

TEST_F(Policy, RefusesADimThatIsNotASize) {
  for (const int dim : {-1, 0, 7, 9, 64, 1 << 30}) {
    const absl::Status status = ChooseWidth({.dim = dim}, tiers_, sizes_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    const auto violations = FieldViolationsOf(status);
    ASSERT_EQ(violations.size(), 1u);
    EXPECT_EQ(violations[0].field, "dim");
    EXPECT_THAT(violations[0].description, HasSubstr("8,16,32"));
  }
}

TEST_F(Policy, RefusesAnUnknownTier) {
  for (const char* tier : {"", "Fast", "platinum"}) {
    const auto violations = FieldViolationsOf(ChooseWidth({.tier = tier}, tiers_, sizes_).status());
    ASSERT_EQ(violations.size(), 1u);
    EXPECT_EQ(violations[0].field, "tier");
    EXPECT_THAT(violations[0].description, HasSubstr("fast, best"));
  }
}

}  // namespace
}  // namespace nestrec
