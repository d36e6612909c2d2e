#include "index/reduced_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "base/random.h"
#include "index/item_filter.h"
#include "index/nested_index.h"
#include "index/score.h"
#include "tests/index/brute_force.h"
#include "tests/index/test_vectors.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

// Threads that wait for each other are slow beside other tests.
class OneThread : public ::testing::Environment {
 public:
  void SetUp() override { omp_set_num_threads(1); }
};
const auto* const one_thread = ::testing::AddGlobalTestEnvironment(new OneThread);

// Calls use(item, column, value) for all of them.
void ForEachValue(TestVectors& vectors, const std::function<void(int64_t, int64_t, float&)>& use) {
  for (int64_t item = 1; item < vectors.rows; ++item) {
    for (int level = 0; level < vectors.sizes.levels(); ++level) {
      const auto row = vectors.row(level, item);
      for (size_t c = 0; c < row.size(); ++c) {
        use(item, vectors.sizes.begin(level) + static_cast<int64_t>(c), row[c]);
      }
    }
  }
}

// What a model without items' own vectors makes: e = W f + b, of features whose weight falls.
TestVectors OfFeatures(int64_t items, std::vector<int> sizes, int64_t features, Random& random) {
  TestVectors vectors = TestVectors::Zeros(items, std::move(sizes));
  const size_t dim = static_cast<size_t>(vectors.sizes.max_dim());
  const std::vector<float> projector =
      GaussianVector(dim * static_cast<size_t>(features), random);  // [dim, features]
  const std::vector<float> bias = GaussianVector(dim, random);
  std::vector<float> of_item;
  int64_t at = 0;
  ForEachValue(vectors, [&](int64_t item, int64_t column, float& value) {
    if (item != at) {
      of_item = GaussianVector(static_cast<size_t>(features), random);
      for (size_t f = 0; f < of_item.size(); ++f) {
        of_item[f] *= std::pow(1.0f + static_cast<float>(f), -0.5f);
      }
      at = item;
    }
    const float* const weights = projector.data() + column * features;
    value = bias[static_cast<size_t>(column)];
    for (size_t f = 0; f < of_item.size(); ++f) value += weights[f] * of_item[f];
  });
  return vectors;
}

std::unique_ptr<const ReducedView> ViewOf(const TestVectors& vectors) {
  auto view = ReducedView::Create(vectors.stored());
  EXPECT_TRUE(view.ok()) << view.status();
  return view.ok() ? *std::move(view) : nullptr;
}

double NormOf(std::span<const float> values) {
  double square = 0;
  for (const float value : values) {
    square += static_cast<double>(value) * static_cast<double>(value);
  }
  return std::sqrt(square);
}

std::vector<std::vector<float>> Queries(int count, size_t dim, Random& random) {
  std::vector<std::vector<float>> queries;
  for (int i = 0; i < count; ++i) queries.push_back(GaussianVector(dim, random));
  return queries;
}

// Searches by the view alone, for several k, filters and limits on the score, one by one and
// together. Returns in how many single searches the view was what was scanned.
int ExpectViewEqualsBruteForce(const TestVectors& vectors,
                               const std::vector<std::vector<float>>& queries) {
  const int levels = vectors.sizes.levels();
  const int64_t items = vectors.rows - 1;
  const auto index = NestedIndex::Create(
      vectors.stored(), {.queries = {}, .first_levels = levels, .measure = false}, nullptr);
  if (!index.ok()) {
    ADD_FAILURE() << index.status();
    return 0;
  }
  std::vector<int32_t> odd;
  for (int32_t item = 1; item <= items; item += 2) odd.push_back(item);
  const ItemFilter half = ItemFilter::Excluding(items, odd);
  const std::vector<int32_t> few = {1, static_cast<int32_t>(items)};
  const ItemFilter rare = ItemFilter::Allowing(items, few);
  const NestedSearchOptions by_view = {.funnel = false, .reduced = true};
  int reduced = 0;
  std::vector<NestedSearchRequest> requests;
  std::vector<std::vector<ScoredItem>> expected;
  for (const std::vector<float>& query : queries) {
    const std::vector<ScoredItem> ranked = RankAll(vectors, levels, query);
    const std::vector<SearchOptions> cases = {
        {.k = 1},
        {.k = 10},
        {.k = items / 2},
        {.k = items + 5},
        {.k = 10, .filter = &half},
        {.k = 10, .filter = &rare},
        {.k = 50, .min_score = ranked[19].score},
        {.k = 50, .min_score = std::nextafter(ranked[19].score, 1e38f)},
        {.k = 10, .filter = &half, .min_score = ranked.front().score},
    };
    for (const SearchOptions& options : cases) {
      NestedSearchStats stats;
      const auto result = (*index)->Search(query, levels, options, by_view, &stats);
      if (!result.ok()) {
        ADD_FAILURE() << result.status();
        return reduced;
      }
      expected.push_back(Best(ranked, options));
      EXPECT_TRUE(result->exact);
      EXPECT_EQ(result->items, expected.back()) << "k " << options.k;
      requests.push_back({query, levels, options});
      reduced += stats.reduced ? 1 : 0;
    }
  }
  for (const NestedSearchOptions& how : {by_view, NestedSearchOptions()}) {
    const auto together = (*index)->SearchBatch(requests, how);
    if (!together.ok()) {
      ADD_FAILURE() << together.status();
      return reduced;
    }
    for (size_t i = 0; i < requests.size(); ++i) EXPECT_EQ((*together)[i].items, expected[i]);
  }
  return reduced;
}

TEST(ReducedView, HasAsManyColumnsAsTheItemsHaveFeatures) {
  Random random(1);
  for (const auto& [features, columns] : {std::pair(3, 16), {16, 16}, {17, 32}, {100, 112}}) {
    const TestVectors vectors = OfFeatures(1500, {64, 256}, features, random);
    const auto view = ViewOf(vectors);
    ASSERT_NE(view, nullptr) << features;
    EXPECT_EQ(view->columns(), columns);
    EXPECT_EQ(view->items(), 1500);
    EXPECT_EQ(view->dim(), 256);
    EXPECT_GE(view->bytes(), 1500 * columns * 4);
  }
}

TEST(ReducedView, ThereIsNoneWhereTheRankIsNotMuchLowerThanTheWidth) {
  Random random(2);
  EXPECT_NE(ViewOf(OfFeatures(1500, {128}, 80, random)), nullptr);
  EXPECT_EQ(ViewOf(OfFeatures(1500, {128}, 81, random)), nullptr);
  EXPECT_EQ(ViewOf(TestVectors::Gaussian(1500, {64, 256}, random)), nullptr);
}

TEST(ReducedView, ThereIsNoneOfZerosOrOfNormsBeyondFloat) {
  Random random(3);
  EXPECT_EQ(ViewOf(TestVectors::Zeros(1500, {128})), nullptr);
  TestVectors vectors = OfFeatures(1500, {128}, 20, random);
  ForEachValue(vectors, [](int64_t, int64_t, float& value) { value *= 1e37f; });
  EXPECT_EQ(ViewOf(vectors), nullptr);
}

TEST(ReducedView, ThereIsNoneOfMoreItemsThanItIsMadeFor) {
  EXPECT_EQ(ReducedView::MostColumns(1024, ReducedView::kMostItems), 640);
  EXPECT_EQ(ReducedView::MostColumns(1024, ReducedView::kMostItems + 1), 0);
  EXPECT_EQ(ReducedView::MostColumns(21, 1000), 0);
}

TEST(ReducedView, RefusesVectorsThatDoNotFitTogether) {
  Random random(4);
  const TestVectors whole = OfFeatures(100, {32, 64}, 5, random);
  LevelVectors vectors = whole.view();
  vectors.levels[1] = vectors.levels[1].first(100);
  EXPECT_EQ(ReducedView::Create(vectors).status().code(), absl::StatusCode::kInvalidArgument);
}

// Of canonical scores, against sums in double that the view's own parts give.
TEST(ReducedView, ScoresAreWithinItsErrorOfTheCanonicalOnes) {
  Random random(5);
  TestVectors vectors = OfFeatures(1500, {32, 160}, 37, random);
  for (const bool halves : {false, true}) {
    if (halves) vectors.Round();
    const auto view = ViewOf(vectors);
    ASSERT_NE(view, nullptr);
    ASSERT_EQ(view->columns(), 48);
    const std::vector<std::vector<float>> queries = Queries(5, 160, random);
    const std::vector<std::span<const float>> spans(queries.begin(), queries.end());
    const std::vector<ReducedView::Query> projected = view->Project(spans);
    double norm = 0;
    for (int64_t item = 1; item < vectors.rows; ++item) {
      std::vector<float> values(160);
      vectors.view().CopyRows(2, item, values);
      norm = std::max(norm, NormOf(values));
    }
    for (size_t q = 0; q < queries.size(); ++q) {
      EXPECT_TRUE(view->Holds(queries[q]));
      // Not so large that it would let every item through.
      EXPECT_LT(projected[q].error, 2e-3 * norm * NormOf(queries[q]));
      double largest = 0;
      for (int64_t row = 0; row < view->items(); ++row) {
        double sum = projected[q].offset;
        for (int64_t c = 0; c < view->columns(); ++c) {
          sum += static_cast<double>(projected[q].weights[static_cast<size_t>(c)]) *
                 static_cast<double>(view->rows()[row * view->columns() + c]);
        }
        const double score =
            static_cast<double>(CanonicalScore(queries[q], vectors.view(), 2, row + 1));
        largest = std::max(largest, std::abs(sum - score));
      }
      EXPECT_LE(largest, projected[q].error);
    }
  }
}

TEST(ReducedView, SearchesEqualBruteForce) {
  Random random(6);
  TestVectors vectors = OfFeatures(3000, {8, 64, 200}, 30, random);
  const auto queries = Queries(3, 200, random);
  // All cases but that of a filter which leaves few.
  EXPECT_EQ(ExpectViewEqualsBruteForce(vectors, queries), 3 * 8);
  vectors.Round();
  EXPECT_EQ(ExpectViewEqualsBruteForce(vectors, queries), 3 * 8);
}

TEST(ReducedView, SearchesEqualBruteForceWhereALittleIsLeftOver) {
  Random random(7);
  for (const float scale : {1e-6f, 1e-4f, 1e-2f, 1.0f}) {
    TestVectors vectors = OfFeatures(2000, {64, 200}, 30, random);
    ForEachValue(vectors, [&](int64_t, int64_t, float& value) {
      value += scale * static_cast<float>(random.Normal());
    });
    const int reduced = ExpectViewEqualsBruteForce(vectors, Queries(2, 200, random));
    EXPECT_EQ(reduced, scale <= 1e-4f ? 2 * 8 : 0) << scale;
  }
}

// Too few of them to count for the rank, so that the view leaves much of them.
TEST(ReducedView, SearchesEqualBruteForceWhereAFewItemsHaveDirectionsOfTheirOwn) {
  Random random(8);
  for (const float scale : {0.005f, 0.05f, 5.0f}) {
    TestVectors vectors = OfFeatures(3000, {200}, 30, random);
    ForEachValue(vectors, [&](int64_t item, int64_t, float& value) {
      if (item % 1000 == 7) value += scale * static_cast<float>(random.Normal());
    });
    const auto view = ViewOf(vectors);
    ASSERT_NE(view, nullptr);
    std::vector<std::vector<float>> queries = Queries(1, 200, random);
    // Such an item as the query.
    const auto row = vectors.row(0, 1007);
    queries.emplace_back(row.begin(), row.end());
    EXPECT_EQ(ExpectViewEqualsBruteForce(vectors, queries), 2 * 8) << scale;
  }
}

TEST(ReducedView, SearchesEqualBruteForceAmongMoreItemsThanAreLookedAtFirst) {
  Random random(9);
  TestVectors vectors = OfFeatures(3000, {64}, 10, random);
  // One that a sample misses: its direction is a column more of the view.
  for (float& value : vectors.row(0, 1234)) value += 20 * static_cast<float>(random.Normal());
  const auto view = ViewOf(vectors);
  ASSERT_NE(view, nullptr);
  EXPECT_LT(view->largest_rest(), 1e-3);
  EXPECT_EQ(ExpectViewEqualsBruteForce(vectors, Queries(2, 64, random)), 2 * 8);
}

TEST(ReducedView, TiesStandInTheOrderOfItemNumbers) {
  Random random(10);
  TestVectors vectors = OfFeatures(2000, {128}, 12, random);
  for (int64_t item = 31; item <= 2000; ++item) {
    const auto source = vectors.row(0, 1 + item % 30);
    std::copy(source.begin(), source.end(), vectors.row(0, item).begin());
  }
  EXPECT_EQ(ExpectViewEqualsBruteForce(vectors, Queries(2, 128, random)), 2 * 8);
  for (int64_t item = 2; item <= 2000; ++item) {  // all alike
    const auto source = vectors.row(0, 1);
    std::copy(source.begin(), source.end(), vectors.row(0, item).begin());
  }
  EXPECT_EQ(ExpectViewEqualsBruteForce(vectors, Queries(2, 128, random)), 2 * 8);
}

TEST(ReducedView, SearchesEqualBruteForceOfZerosAmongItemsAndAsTheQuery) {
  Random random(11);
  TestVectors vectors = OfFeatures(2000, {128}, 12, random);
  ForEachValue(vectors, [](int64_t item, int64_t, float& value) {
    if (item % 3 == 0) value = 0;
  });
  std::vector<std::vector<float>> queries = Queries(1, 128, random);
  queries.emplace_back(128, 0.0f);
  EXPECT_EQ(ExpectViewEqualsBruteForce(vectors, queries), 2 * 8);
}

TEST(ReducedView, SearchesEqualBruteForceOfHugeAndTinyNorms) {
  Random random(12);
  for (const float scale : {1e-44f, 1e-38f, 1e-30f, 1e18f, 1e30f, 1e35f}) {
    TestVectors vectors = OfFeatures(1500, {96}, 12, random);
    ForEachValue(vectors, [&](int64_t, int64_t, float& value) { value *= scale; });
    std::vector<std::vector<float>> queries = Queries(2, 96, random);
    for (float& value : queries[1]) value *= scale;
    ExpectViewEqualsBruteForce(vectors, queries);
  }
  TestVectors vectors = OfFeatures(1500, {96}, 12, random);
  ForEachValue(vectors, [](int64_t item, int64_t, float& value) {
    value *= std::pow(10.0f, static_cast<float>(item % 70) - 35);
  });
  std::vector<std::vector<float>> queries = Queries(2, 96, random);
  for (float& value : queries[1]) value *= 1e36f;  // beyond what the view holds
  ExpectViewEqualsBruteForce(vectors, queries);
}

TEST(ReducedView, ManyThreadsFindTheSame) {
  Random random(13);
  const absl::Cleanup one = [] { omp_set_num_threads(1); };
  const TestVectors vectors = OfFeatures(20000, {64}, 12, random);
  for (const int threads : {1, 3}) {
    omp_set_num_threads(threads);
    EXPECT_EQ(ExpectViewEqualsBruteForce(vectors, Queries(2, 64, random)), 2 * 8);
  }
}

TEST(ReducedView, QueriesOfMixedWidthsFindTheSame) {
  Random random(14);
  const TestVectors vectors = OfFeatures(3000, {64, 96, 200}, 30, random);
  const auto index = NestedIndex::Create(vectors.view(), {.measure = false}, nullptr);
  ASSERT_TRUE(index.ok()) << index.status();
  for (const int levels : {1, 2, 3}) {
    ASSERT_NE((*index)->reduced_view(levels), nullptr) << levels;
    EXPECT_EQ((*index)->reduced_view(levels)->columns(), 32);
  }
  const std::vector<std::vector<float>> queries = Queries(40, 200, random);
  std::vector<NestedSearchRequest> requests;
  for (size_t i = 0; i < queries.size(); ++i) {
    const int levels = 1 + static_cast<int>(i % 3);
    const size_t width = static_cast<size_t>(vectors.sizes.end(levels - 1));
    requests.push_back({std::span(queries[i]).first(width),
                        levels,
                        {.k = static_cast<int64_t>(i % 2 == 0 ? 5 : 900)}});
  }
  for (const NestedSearchOptions& how : std::vector<NestedSearchOptions>{
           {}, {.funnel = false}, {.funnel = false, .reduced = true}}) {
    const auto results = (*index)->SearchBatch(requests, how);
    ASSERT_TRUE(results.ok()) << results.status();
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ((*results)[i].items,
                BruteForce(vectors, requests[i].levels, requests[i].query, requests[i].options));
    }
  }
}

TEST(ReducedView, WhatIsChosenByTrialsChangesNoResult) {
  Random random(15);
  const TestVectors vectors = OfFeatures(4000, {64, 512}, 30, random);
  const std::vector<float> examples = GaussianVector(512 * 40, random);
  std::vector<std::shared_ptr<const NestedIndex>> indexes;
  for (const auto& [measure, reduce] : {std::pair(true, true), {true, false}, {false, true}}) {
    auto index = NestedIndex::Create(
        vectors.view(), {.queries = examples, .measure = measure, .reduce = reduce}, nullptr);
    ASSERT_TRUE(index.ok()) << index.status();
    indexes.push_back(*std::move(index));
  }
  for (const int levels : {1, 2}) {
    const size_t width = static_cast<size_t>(vectors.sizes.end(levels - 1));
    for (const int64_t k : {10, 100, 2000}) {
      const std::vector<std::vector<float>> queries = Queries(33, width, random);
      std::vector<NestedSearchRequest> requests;
      for (const std::vector<float>& query : queries) requests.push_back({query, levels, {.k = k}});
      std::vector<std::vector<SearchResult>> results;
      for (const auto& index : indexes) {
        auto found = index->SearchBatch(requests);
        ASSERT_TRUE(found.ok()) << found.status();
        results.push_back(*std::move(found));
      }
      for (size_t i = 0; i < requests.size(); ++i) {
        const auto expected = BruteForce(vectors, levels, queries[i], {.k = k});
        for (size_t of = 0; of < indexes.size(); ++of) {
          EXPECT_EQ(results[of][i].items, expected);
          const auto alone = indexes[of]->Search(queries[i], levels, {.k = k});
          ASSERT_TRUE(alone.ok());
          EXPECT_EQ(alone->items, expected);
        }
      }
    }
  }
}

TEST(ReducedView, AnIndexKeepsItsBytesWhereItIsChosenAlone) {
  Random random(16);
  const TestVectors vectors = OfFeatures(4000, {64, 512}, 30, random);
  const auto kept = NestedIndex::Create(vectors.view(), {.measure = false}, nullptr);
  const auto without = NestedIndex::Create(vectors.view(), {.reduce = false}, nullptr);
  const auto measured = NestedIndex::Create(vectors.view(), {}, nullptr);
  ASSERT_TRUE(kept.ok() && without.ok() && measured.ok());
  const ReducedView* const view = (*kept)->reduced_view(2);
  ASSERT_NE(view, nullptr);
  EXPECT_EQ((*kept)->reduced_bytes(), view->bytes() + (*kept)->reduced_view(1)->bytes());
  EXPECT_EQ((*kept)->bytes(), (*without)->bytes());
  EXPECT_EQ((*without)->reduced_bytes(), 0);
  const auto at512 = NestedIndex::AtLevels(*kept, 2, {});
  ASSERT_TRUE(at512.ok()) << at512.status();
  EXPECT_EQ((*at512)->bytes(), (*kept)->codes(2).bytes() + view->bytes());
  EXPECT_THAT((*at512)->description(), HasSubstr("scans 32 columns"));
  int64_t bytes = 0;
  for (const int levels : {1, 2}) {
    bool chosen = false;
    for (const int64_t queries : {1, 8, 32}) {
      for (const int64_t k : {10, 100}) {
        chosen = chosen || (*measured)->reduced(levels, queries, k);
        EXPECT_FALSE((*without)->reduced(levels, queries, k));
      }
    }
    const ReducedView* const left = (*measured)->reduced_view(levels);
    EXPECT_EQ(left != nullptr, chosen);
    bytes += left != nullptr ? left->bytes() : 0;
  }
  EXPECT_EQ((*measured)->reduced_bytes(), bytes);
}

// A share of the bounds and a limit on candidates mean less work, not a scan of everything.
TEST(ReducedView, ApproximateSearchesDoNotTakeIt) {
  Random random(17);
  const TestVectors vectors = OfFeatures(4000, {512}, 30, random);
  const auto index = NestedIndex::Create(vectors.view(), {.measure = false}, nullptr);
  ASSERT_TRUE(index.ok()) << index.status();
  const std::vector<float> query = GaussianVector(512, random);
  NestedSearchStats stats;
  // So many that everything is scored.
  ASSERT_TRUE((*index)->Search(query, 1, {.k = 1000}, {}, &stats).ok());
  EXPECT_TRUE(stats.reduced);
  ASSERT_TRUE((*index)->Search(query, 1, {.k = 1000}, {.share = 0.5f}, &stats).ok());
  EXPECT_FALSE(stats.reduced);
  ASSERT_TRUE((*index)->Search(query, 1, {.k = 1000}, {.most_scored = 2000}, &stats).ok());
  EXPECT_FALSE(stats.reduced);
}

}  // namespace
}  // namespace nestrec
