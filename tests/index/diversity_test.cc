#include "index/diversity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "index/exhaustive_search.h"
#include "index/faiss_index.h"
#include "tests/index/test_vectors.h"

namespace nestrec {

void PrintTo(const ScoredItem& item, std::ostream* out) { *out << item.item << ":" << item.score; }

namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Items with up to two brands and a series each, as values that the test can read.
struct Shop {
  TestVectors vectors;
  std::vector<std::vector<std::string>> brands;  // by item number
  std::vector<std::string> series;
  AttributeTable table;
  std::unique_ptr<const ItemIndex> index;

  Shop(int64_t items, int64_t brand_count, const std::string& factory, Random& random)
      : vectors(TestVectors::Gaussian(items, {8, 16}, random)),
        brands(static_cast<size_t>(items) + 1),
        series(static_cast<size_t>(items) + 1) {
    AttributeTable::Builder builder(items);
    for (int32_t item = 1; item <= items; ++item) {
      for (int64_t n = random.Index(3); n > 0; --n) {
        const std::string brand = absl::StrCat("b", random.Index(brand_count));
        brands[static_cast<size_t>(item)].push_back(brand);
        builder.AddText(item, "brand", brand);
      }
      series[static_cast<size_t>(item)] = absl::StrCat("s", random.Index(20));
      builder.AddText(item, "series", series[static_cast<size_t>(item)]);
    }
    table = std::move(builder).Build();
    index = *BuildFaissIndex(vectors.view(), 2, {.factory = factory}, nullptr);
  }

  // Walks the whole ranking.
  std::vector<ScoredItem> Expected(std::span<const float> query, const SearchOptions& options,
                                   int brand_cap, int series_cap) const {
    SearchOptions all = options;
    all.k = vectors.rows;
    std::map<std::string, int> counts;
    std::vector<ScoredItem> taken;
    for (const ScoredItem& item : ExhaustiveSearch(query, vectors.view(), 2, all).items) {
      std::vector<std::string> of_item = brands[static_cast<size_t>(item.item)];
      std::sort(of_item.begin(), of_item.end());
      of_item.erase(std::unique(of_item.begin(), of_item.end()), of_item.end());
      bool full = counts[series[static_cast<size_t>(item.item)]] >= series_cap;
      for (const std::string& brand : of_item) full = full || counts[brand] >= brand_cap;
      if (full || static_cast<int64_t>(taken.size()) == options.k) continue;
      taken.push_back(item);
      ++counts[series[static_cast<size_t>(item.item)]];
      for (const std::string& brand : of_item) ++counts[brand];
    }
    return taken;
  }

  std::vector<GroupCap> Caps(int brand_cap, int series_cap) const {
    return {{.field = "brand", .most = brand_cap},
            {.field = "series", .most = series_cap}};
  }
};

TEST(SearchWithCaps, EqualsWalkingTheWholeRanking) {
  Random random(1);
  for (const int64_t brand_count : {2, 10, 500}) {
    const Shop shop(3000, brand_count, "Flat", random);
    for (const int cap : {1, 2, 5}) {
      for (const int64_t k : {1, 10, 60, 5000}) {
        const std::vector<float> query = GaussianVector(16, random);
        std::vector<int32_t> excluded;
        for (int i = 0; i < 40; ++i)
          excluded.push_back(static_cast<int32_t>(1 + random.Index(3000)));
        const ItemFilter filter = ItemFilter::Excluding(3000, excluded);
        const SearchOptions options = {.k = k, .filter = random.Index(2) ? &filter : nullptr};
        const auto caps = shop.Caps(cap, 2 * cap);
        const auto result = SearchWithCaps(*shop.index, query, options, shop.table, caps);
        ASSERT_TRUE(result.ok()) << result.status();
        EXPECT_TRUE(result->exact);
        EXPECT_EQ(result->items, shop.Expected(query, options, cap, 2 * cap));
      }
    }
  }
}

TEST(SearchWithCaps, SearchesNoMoreThanItNeeds) {
  Random random(2);
  const Shop shop(3000, 2, "Flat", random);  // two brands: the third item at the latest is too much
  const std::vector<float> query = GaussianVector(16, random);
  const auto result = SearchWithCaps(*shop.index, query, {.k = 5}, shop.table, shop.Caps(1, 1000));
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->items.size(), 5u);
  EXPECT_LT(result->rescored, 1000);
}

TEST(SearchWithCaps, AppliesMinScore) {
  Random random(3);
  const Shop shop(1000, 10, "Flat", random);
  const std::vector<float> query = GaussianVector(16, random);
  const float score = ExhaustiveSearch(query, shop.vectors.view(), 2, {.k = 8}).items.back().score;
  const SearchOptions options = {.k = 100, .min_score = score};
  const auto result = SearchWithCaps(*shop.index, query, options, shop.table, shop.Caps(1, 100));
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->items, shop.Expected(query, options, 1, 100));
  EXPECT_LE(result->items.size(), 8u);
}

TEST(SearchWithCaps, HoldsTheCapsWithAnApproximateIndex) {
  Random random(4);
  const Shop shop(3000, 10, "IVF16,Flat", random);
  for (int round = 0; round < 10; ++round) {
    const auto result = SearchWithCaps(*shop.index, GaussianVector(16, random), {.k = 12},
                                       shop.table, shop.Caps(3, 2));
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->items.size(), 12u);
    EXPECT_TRUE(std::is_sorted(result->items.begin(), result->items.end(), RanksBefore));
    std::map<std::string, int> counts;
    for (const ScoredItem& item : result->items) {
      EXPECT_LE(++counts[shop.series[static_cast<size_t>(item.item)]], 2);
    }
  }
}

TEST(SearchWithCaps, PassesTheErrorsOfTheSearchOn) {
  Random random(5);
  const Shop shop(100, 10, "Flat", random);
  const std::vector<float> query = GaussianVector(16, random);
  EXPECT_THAT(
      SearchWithCaps(*shop.index, query, {.k = 0}, shop.table, shop.Caps(1, 1)).status().message(),
      HasSubstr("k is 0"));
  EXPECT_THAT(
      SearchWithCaps(*shop.index, std::span(query).first(3), {.k = 1}, shop.table, shop.Caps(1, 1))
          .status()
          .message(),
      HasSubstr("3 values"));
}

double Cosine(const TestVectors& vectors, int32_t a, int32_t b) {
  double ab = 0, aa = 0, bb = 0;
  for (int level = 0; level < 2; ++level) {
    const auto x = vectors.view().row(level, a);
    const auto y = vectors.view().row(level, b);
    for (size_t i = 0; i < x.size(); ++i) {
      ab += static_cast<double>(x[i]) * y[i];
      aa += static_cast<double>(x[i]) * x[i];
      bb += static_cast<double>(y[i]) * y[i];
    }
  }
  return aa == 0 || bb == 0 ? 0 : ab / std::sqrt(aa * bb);
}

// The value that the definition gives `item` after `picked`.
double MmrValue(const TestVectors& vectors, std::span<const ScoredItem> candidates,
                std::span<const ScoredItem> picked, const ScoredItem& item, double weight) {
  const double low = candidates.back().score, high = candidates.front().score;
  const double relevance = high > low ? (item.score - low) / (high - low) : 1;
  double closest = picked.empty() ? 0 : -1;
  for (const ScoredItem& other : picked) {
    closest = std::max(closest, Cosine(vectors, item.item, other.item));
  }
  return weight * relevance - (1 - weight) * closest;
}

TEST(PickDiverse, PicksTheBestByTheDefinitionEachTime) {
  Random random(6);
  const TestVectors vectors = TestVectors::Gaussian(500, {8, 16}, random);
  for (const double weight : {0.0, 0.3, 0.7, 0.95}) {
    const std::vector<float> query = GaussianVector(16, random);
    const auto candidates = ExhaustiveSearch(query, vectors.view(), 2, {.k = 100}).items;
    const auto picked = PickDiverse(candidates, vectors.view(), 2, weight, 30);
    ASSERT_EQ(picked.size(), 30u);
    std::vector<ScoredItem> left = candidates;
    for (size_t i = 0; i < picked.size(); ++i) {
      const auto before = std::span(picked).first(i);
      const double value = MmrValue(vectors, candidates, before, picked[i], weight);
      for (const ScoredItem& other : left) {
        EXPECT_GE(value, MmrValue(vectors, candidates, before, other, weight) - 1e-5);
      }
      ASSERT_EQ(std::erase(left, picked[i]), 1u);  // a candidate, each once
    }
  }
}

TEST(PickDiverse, KeepsTheOrderWhereOnlyTheScoreCounts) {
  Random random(7);
  const TestVectors vectors = TestVectors::Gaussian(200, {8, 16}, random);
  const auto candidates =
      ExhaustiveSearch(GaussianVector(16, random), vectors.view(), 2, {.k = 50}).items;
  EXPECT_EQ(PickDiverse(candidates, vectors.view(), 2, 1.0, 50), candidates);
}

TEST(PickDiverse, PutsCopiesLast) {
  Random random(8);
  TestVectors vectors = TestVectors::Gaussian(4, {8}, random);
  for (const int32_t copy : {2, 3}) {
    std::copy_n(vectors.row(0, 1).begin(), 8, vectors.row(0, copy).begin());
  }
  const std::vector<ScoredItem> candidates = {{1, 4}, {2, 4}, {3, 4}, {4, 3}};
  const auto picked = PickDiverse(candidates, vectors.view(), 1, 0.4, 4);
  EXPECT_EQ(picked[0].item, 1);
  EXPECT_EQ(picked[1].item, 4);
}

TEST(PickDiverse, TakesZerosTiesAndSmallLists) {
  const TestVectors zeros = TestVectors::Zeros(5, {8});
  const std::vector<ScoredItem> ties = {{2, 1}, {3, 1}, {5, 1}};
  EXPECT_EQ(PickDiverse(ties, zeros.view(), 1, 0.5, 10), ties);
  EXPECT_THAT(PickDiverse({}, zeros.view(), 1, 0.5, 10), IsEmpty());
  EXPECT_THAT(PickDiverse(ties, zeros.view(), 1, 0.5, 0), IsEmpty());
  EXPECT_THAT(PickDiverse(ties, zeros.view(), 1, 0.5, 1), ElementsAre(ScoredItem{2, 1}));
}

}  // namespace
}  // namespace nestrec
