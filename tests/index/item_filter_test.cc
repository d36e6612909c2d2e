#include "index/item_filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/random.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;

// Filters of every size of N and share, with what they allow as plain flags, [N + 1].
struct Case {
  ItemFilter filter;
  std::vector<bool> allowed;
};

Case RandomCase(int64_t items, double share, Random& random) {
  std::vector<bool> allowed(static_cast<size_t>(items) + 1, false);
  std::vector<int32_t> listed;
  for (int64_t item = 1; item <= items; ++item) {
    if (random.Uniform() < share) {
      allowed[static_cast<size_t>(item)] = true;
      listed.push_back(static_cast<int32_t>(item));
    }
  }
  random.Shuffle(std::span(listed));
  return {ItemFilter::Allowing(items, listed), allowed};
}

void ExpectAllows(const ItemFilter& filter, const std::vector<bool>& allowed) {
  ASSERT_EQ(filter.items(), static_cast<int64_t>(allowed.size()) - 1);
  std::vector<int64_t> expected;
  for (size_t item = 1; item < allowed.size(); ++item) {
    ASSERT_EQ(filter.Allows(static_cast<int64_t>(item)), allowed[item]) << item;
    if (allowed[item]) expected.push_back(static_cast<int64_t>(item));
  }
  EXPECT_EQ(filter.allowed(), static_cast<int64_t>(expected.size()));
  std::vector<int64_t> visited;
  filter.ForEachAllowed([&](int64_t item) { visited.push_back(item); });
  EXPECT_EQ(visited, expected);
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>(1, filter.items() + 1),
                                   {1, 1},
                                   {filter.items() / 3 + 1, filter.items() / 2 + 1},
                                   {filter.items() / 2 + 1, filter.items() + 1}}) {
    std::vector<int64_t> forbidden;
    filter.ForEachForbidden(begin, end, [&](int64_t item) { forbidden.push_back(item); });
    std::vector<int64_t> not_allowed;
    for (int64_t item = begin; item < end; ++item) {
      if (!allowed[static_cast<size_t>(item)]) not_allowed.push_back(item);
    }
    EXPECT_EQ(forbidden, not_allowed);
  }
  EXPECT_EQ(filter.few().has_value(), filter.allowed() * ItemFilter::kFewShare <= filter.items());
  if (filter.few().has_value()) {
    EXPECT_TRUE(
        std::equal(filter.few()->begin(), filter.few()->end(), expected.begin(), expected.end()));
  }
}

constexpr int64_t kSizes[] = {1, 2, 62, 63, 64, 65, 127, 128, 1000, 70'000};
constexpr double kShares[] = {0.0, 0.0001, 0.01, 0.02, 0.5, 0.99, 1.0};

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

TEST(ItemFilter, AllowsWhatIsListedAtEverySizeAndShare) {
  Random random(1);
  for (const int64_t items : kSizes) {
    for (const double share : kShares) {
      const Case c = RandomCase(items, share, random);
      ExpectAllows(c.filter, c.allowed);
      std::vector<bool> others = c.allowed;
      others.flip();
      others[0] = false;
      ExpectAllows(c.filter.Not(), others);
    }
  }
}

TEST(ItemFilter, CombinesFewAndMany) {
  Random random(2);
  for (const int64_t items : {int64_t{64}, int64_t{1000}, int64_t{20'000}}) {
    for (const double share_a : kShares) {
      for (const double share_b : kShares) {
        const Case a = RandomCase(items, share_a, random);
        const Case b = RandomCase(items, share_b, random);
        std::vector<bool> both = a.allowed, either = a.allowed;
        for (size_t item = 0; item < both.size(); ++item) {
          both[item] = a.allowed[item] && b.allowed[item];
          either[item] = a.allowed[item] || b.allowed[item];
        }
        ExpectAllows(a.filter.And(b.filter), both);
        ExpectAllows(a.filter.Or(b.filter), either);
      }
    }
  }
}

TEST(ItemFilter, TakesSetsAndLeavesOutWhatIsOutside) {
  const ItemSet set = ItemSet::Of(std::vector<int32_t>{0, 1, 5, 99, 100, 101, 2'000'000'000});
  std::vector<int64_t> allowed;
  ItemFilter::Allowing(100, set).ForEachAllowed([&](int64_t item) { allowed.push_back(item); });
  EXPECT_THAT(allowed, ElementsAre(1, 5, 99, 100));
  EXPECT_EQ(ItemFilter::Allowing(100, ItemSet::Range(1, 101)).allowed(), 100);
}

TEST(ItemFilter, KeepsItsItemsWhenResized) {
  Random random(3);
  for (const int64_t from : kSizes) {
    for (const int64_t to : kSizes) {
      const Case c = RandomCase(from, 0.5, random);
      std::vector<bool> allowed = c.allowed;
      allowed.resize(static_cast<size_t>(to) + 1, false);
      ExpectAllows(c.filter.Resized(to), allowed);
    }
  }
}

TEST(ItemFilter, OfFewItemsAmongManyTakesFewBytes) {
  EXPECT_LT(ItemFilter::Allowing(10'000'000, std::vector<int32_t>{5, 7'000'000}).bytes(), 100);
  EXPECT_LT(ItemFilter::Excluding(10'000'000, {}).bytes(), 1'300'000);
}

}  // namespace
}  // namespace nestrec
