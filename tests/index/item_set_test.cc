#include "index/item_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "base/random.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::set<int32_t> RandomNumbers(int64_t below, double share, Random& random) {
  std::set<int32_t> numbers;
  for (int64_t number = 0; number < below; ++number) {
    if (random.Uniform() < share) numbers.insert(static_cast<int32_t>(number));
  }
  return numbers;
}

ItemSet SetOf(const std::set<int32_t>& numbers) {
  return ItemSet::Of(std::vector<int32_t>(numbers.begin(), numbers.end()));
}

TEST(ItemSet, SortsAndDropsRepetitions) {
  const ItemSet set = ItemSet::Of(std::vector<int32_t>{70'000, 3, 3, 1, 70'000});
  EXPECT_EQ(set.size(), 3);
  EXPECT_THAT(set.Items(), ElementsAre(1, 3, 70'000));
  EXPECT_TRUE(set.Contains(70'000));
  EXPECT_FALSE(set.Contains(2));
  EXPECT_FALSE(set.Contains(-1));
}

TEST(ItemSet, IsEmptyToBeginWith) {
  EXPECT_THAT(ItemSet().Items(), IsEmpty());
  EXPECT_EQ(ItemSet::Of({}), ItemSet());
  EXPECT_EQ(ItemSet::Range(5, 5), ItemSet());
  EXPECT_EQ(ItemSet::Union({}), ItemSet());
}

TEST(ItemSet, CombinesAsSetsDo) {
  Random random(1);
  for (const double share : {0.0, 0.0001, 0.01, 0.5, 0.999, 1.0}) {
    const std::set<int32_t> a = RandomNumbers(200'000, share, random);
    const std::set<int32_t> b = RandomNumbers(200'000, 0.3, random);
    std::vector<int32_t> both, either, only_a;
    std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
    std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(either));
    std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(only_a));
    EXPECT_EQ(SetOf(a).And(SetOf(b)).Items(), both);
    EXPECT_EQ(SetOf(a).Or(SetOf(b)).Items(), either);
    EXPECT_EQ(SetOf(a).Without(SetOf(b)).Items(), only_a);
    EXPECT_EQ(ItemSet::Union(std::vector<ItemSet>{SetOf(a), SetOf(b), ItemSet()}).Items(), either);
  }
}

TEST(ItemSet, SetsABitForEveryItem) {
  Random random(2);
  // Parts that are lists, runs and bits, next to each other, with and without runs among them.
  for (const double share : {0.0001, 0.01, 0.05, 0.1, 0.5, 0.99}) {
    for (const bool with_runs : {false, true}) {
      for (const int64_t below : {50'000, 200'000, 700'000}) {
        ItemSet set = SetOf(RandomNumbers(below, share, random));
        if (with_runs) {
          set = set.Or(ItemSet::Range(70'001, 140'063)).Or(ItemSet::Range(131'072, 131'073));
        }
        for (const size_t word_count : {size_t{1}, size_t{1500}, size_t{11'000}}) {
          std::vector<uint64_t> expected(word_count, 0);
          for (const int32_t item : set.Items()) {
            const auto at = static_cast<size_t>(item);
            if (at / 64 < word_count) expected[at / 64] |= uint64_t{1} << (at % 64);
          }
          std::vector<uint64_t> words(word_count, 0);
          set.SetBits(words);
          ASSERT_EQ(words, expected) << share << " " << with_runs << " " << below;
        }
      }
    }
  }
  std::vector<uint64_t> none(3, 0);
  ItemSet().SetBits(none);
  EXPECT_EQ(none, std::vector<uint64_t>(3, 0));
}

TEST(ItemSet, OfOneRangeTakesFewBytes) {
  const ItemSet all = ItemSet::Range(1, 10'000'001);
  EXPECT_EQ(all.size(), 10'000'000);
  EXPECT_FALSE(all.Contains(0));
  EXPECT_TRUE(all.Contains(10'000'000));
  EXPECT_FALSE(all.Contains(10'000'001));
  EXPECT_LT(all.bytes(), 10'000);
}

}  // namespace
}  // namespace nestrec
