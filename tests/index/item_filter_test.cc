#include "index/item_filter.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace nestrec {
namespace {

TEST(ItemFilter, AllowsEverythingThatIsNotListed) {
  const std::vector<int32_t> excluded = {1, 64, 65, 130, 64};
  const ItemFilter filter = ItemFilter::Excluding(130, excluded);
  EXPECT_EQ(filter.items(), 130);
  EXPECT_EQ(filter.allowed(), 126);
  for (int64_t item = 1; item <= 130; ++item) {
    EXPECT_EQ(filter.Allows(item), item != 1 && item != 64 && item != 65 && item != 130) << item;
  }
}

TEST(ItemFilter, CanExcludeEverything) {
  std::vector<int32_t> all(128);
  std::iota(all.begin(), all.end(), 1);
  EXPECT_EQ(ItemFilter::Excluding(128, all).allowed(), 0);
}

TEST(ItemFilter, ExcludesNothingForAnEmptyList) {
  EXPECT_EQ(ItemFilter::Excluding(63, {}).allowed(), 63);
}

}  // namespace
}  // namespace nestrec
