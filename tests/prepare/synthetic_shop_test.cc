#include "model/prepare/synthetic_shop.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/prepare/shop_words.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

std::vector<std::vector<int64_t>> Sequences(const SyntheticShop& shop, int64_t users) {
  std::vector<std::vector<int64_t>> sequences(static_cast<size_t>(users));
  for (const ShopEvent& event : shop.events)
    sequences[static_cast<size_t>(event.user)].push_back(event.item);
  return sequences;
}

// The part of the users whose last item is among the ten that `scores` ranks highest.
template <typename Scores>
double RecallAt10(const std::vector<std::vector<int64_t>>& sequences, const Scores& scores) {
  int hits = 0;
  for (const std::vector<int64_t>& sequence : sequences) {
    const std::map<int64_t, int> counts = scores(sequence);
    std::vector<std::pair<int, int64_t>> ranked;
    for (const auto& [item, count] : counts) ranked.emplace_back(-count, item);
    std::sort(ranked.begin(), ranked.end());
    for (size_t i = 0; i < std::min<size_t>(10, ranked.size()); ++i)
      hits += ranked[i].second == sequence.back();
  }
  return hits / static_cast<double>(sequences.size());
}

TEST(SyntheticShop, IsTheSameForTheSameSeed) {
  const TempFolder folder;
  const ShopOptions options{.users = 100, .items = 80, .seed = 5};
  for (const char* name : {"a", "b"}) {
    const auto shop = MakeSyntheticShop(options);
    ASSERT_TRUE(shop.ok());
    ASSERT_TRUE(WriteSyntheticShop(*shop, folder.File(name)).ok());
  }
  EXPECT_EQ(*ReadFile(folder.File("a/events.csv")), *ReadFile(folder.File("b/events.csv")));
  EXPECT_EQ(*ReadFile(folder.File("a/catalogue.jsonl")),
            *ReadFile(folder.File("b/catalogue.jsonl")));
  ASSERT_TRUE(WriteSyntheticShop(*MakeSyntheticShop({.users = 100, .items = 80, .seed = 6}),
                                 folder.File("c"))
                  .ok());
  EXPECT_NE(*ReadFile(folder.File("a/events.csv")), *ReadFile(folder.File("c/events.csv")));
}

TEST(SyntheticShop, HasWhatWasAskedFor) {
  for (const int64_t items : {20, 137, 1000, 5000}) {
    const auto shop = MakeSyntheticShop({.users = 50, .items = items, .seed = 1});
    ASSERT_TRUE(shop.ok()) << shop.status();
    EXPECT_EQ(static_cast<int64_t>(shop->items.size()), items);
    std::set<std::string> ids, brands;
    for (const ShopItem& item : shop->items) {
      ids.insert(item.id);
      brands.insert(item.brand);
      EXPECT_THAT(item.title, HasSubstr(item.brand));
    }
    EXPECT_EQ(static_cast<int64_t>(ids.size()), items);
    EXPECT_GT(brands.size(), 1u);
    for (const std::vector<int64_t>& sequence : Sequences(*shop, 50)) {
      EXPECT_GE(sequence.size(), 5u);
      EXPECT_EQ(std::set<int64_t>(sequence.begin(), sequence.end()).size(), sequence.size());
    }
    EXPECT_TRUE(std::is_sorted(
        shop->events.begin(), shop->events.end(),
        [](const ShopEvent& a, const ShopEvent& b) { return a.timestamp < b.timestamp; }));
  }
}

// What makes it worth training on: popularity knows little, the last item more, the last two items
// most.
TEST(SyntheticShop, RewardsKnowingTheSequence) {
  const ShopOptions options;
  const auto shop = MakeSyntheticShop(options);
  ASSERT_TRUE(shop.ok());
  const auto sequences = Sequences(*shop, options.users);
  std::map<int64_t, int> popular;
  std::map<int64_t, std::map<int64_t, int>> after, after_next;
  for (const std::vector<int64_t>& sequence : sequences) {
    for (size_t i = 0; i + 1 < sequence.size(); ++i) {
      ++popular[sequence[i]];
      if (i + 2 < sequence.size()) ++after[sequence[i]][sequence[i + 1]];
      if (i + 3 < sequence.size()) ++after_next[sequence[i]][sequence[i + 2]];
    }
  }
  const double by_popularity = RecallAt10(sequences, [&](const auto&) { return popular; });
  const double by_last =
      RecallAt10(sequences, [&](const auto& s) { return after[s[s.size() - 2]]; });
  const double by_two = RecallAt10(sequences, [&](const auto& s) {
    std::map<int64_t, int> scores = after[s[s.size() - 2]];
    for (const auto& [item, count] : after_next[s[s.size() - 3]]) scores[item] += count;
    return scores;
  });
  EXPECT_LT(by_popularity, 0.1);
  EXPECT_GT(by_last, 0.25);
  EXPECT_LT(by_last, 0.55);
  EXPECT_GT(by_two, by_last + 0.15);
  RecordProperty("recall", std::to_string(by_popularity) + " " + std::to_string(by_last) + " " +
                               std::to_string(by_two));
}

TEST(SyntheticShop, BrandNamesDiffer) {
  std::set<std::string> names;
  for (int64_t i = 0; i < kMaxShopBrands; ++i) names.insert(ShopBrand(i));
  EXPECT_EQ(static_cast<int64_t>(names.size()), kMaxShopBrands);
}

TEST(SyntheticShop, RefusesSizesOutsideItsRange) {
  EXPECT_EQ(MakeSyntheticShop({.users = 9}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MakeSyntheticShop({.items = 19}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MakeSyntheticShop({.items = 1000000000}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace nestrec
