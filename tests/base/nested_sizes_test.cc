#include "base/nested_sizes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(NestedSizes, GivesLevelsOfParsedSizes) {
  const auto sizes = NestedSizes::Parse("8, 16,40");
  ASSERT_TRUE(sizes.ok()) << sizes.status();
  EXPECT_EQ(sizes->levels(), 3);
  EXPECT_EQ(sizes->begin(0), 0);
  EXPECT_EQ(sizes->begin(2), 16);
  EXPECT_EQ(sizes->width(2), 24);
  EXPECT_EQ(sizes->max_dim(), 40);
  EXPECT_EQ(*sizes->LevelsOf(16), 2);
  EXPECT_EQ(sizes->Prefix(2).ToString(), "8,16");
}

TEST(NestedSizes, DoublesUpToTheWidest) {
  EXPECT_THAT(NestedSizes::Doubling(64)->values(), ElementsAre(8, 16, 32, 64));
  EXPECT_THAT(NestedSizes::Doubling(100)->values(), ElementsAre(8, 16, 32, 64, 100));
  EXPECT_THAT(NestedSizes::Doubling(4)->values(), ElementsAre(4));
}

TEST(NestedSizes, RefusesWhatIsNotIncreasingOrTooNarrow) {
  EXPECT_THAT(NestedSizes::Parse("8,8").status().message(),
              HasSubstr("not strictly increasing at 8"));
  EXPECT_THAT(NestedSizes::Parse("16,8").status().message(),
              HasSubstr("not strictly increasing at 8"));
  EXPECT_THAT(NestedSizes::Parse("8,9").status().message(), HasSubstr("1 column wide"));
  for (const char* narrow : {"1,8", "0,8", "-4,8", "0", "-4", "8,-16"}) {
    EXPECT_THAT(NestedSizes::Parse(narrow).status().message(),
                HasSubstr("every level needs at least 2 columns"));
  }
  EXPECT_THAT(NestedSizes::Parse("-4,8").status().message(), HasSubstr("-4 in -4,8 is too narrow"));
  EXPECT_THAT(NestedSizes::Parse("").status().message(), HasSubstr("not a whole number"));
  EXPECT_THAT(NestedSizes::Parse("8,x").status().message(), HasSubstr("'x'"));
  EXPECT_THAT(NestedSizes::Parse("100000").status().message(), HasSubstr("65536"));
  EXPECT_THAT(NestedSizes::Parse("8, 99999999999999999999").status().message(),
              HasSubstr("99999999999999999999 is outside the limits, 2 to 65536"));
  EXPECT_THAT(NestedSizes::Parse("-99999999999").status().message(), HasSubstr("2 to 65536"));
  EXPECT_FALSE(NestedSizes::Create({}).ok());
  EXPECT_THAT(NestedSizes::Doubling(1).status().message(), HasSubstr("1 in 1 is too narrow"));
}

TEST(NestedSizes, NamesItsSizesForAnUnknownDim) {
  EXPECT_THAT(NestedSizes::Parse("8,16")->LevelsOf(12).status().message(),
              HasSubstr("12 is not one of this model's sizes 8,16"));
}

}  // namespace
}  // namespace nestrec
