#include "index/nested_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "base/random.h"
#include "index/item_filter.h"
#include "index/nested_builder.h"
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

std::shared_ptr<const NestedIndex> Build(const TestVectors& vectors,
                                         std::span<const float> queries = {}) {
  auto index =
      NestedIndex::Create(vectors.stored(), {.queries = queries, .measure = false}, nullptr);
  EXPECT_TRUE(index.ok()) << index.status();
  return index.ok() ? *std::move(index) : nullptr;
}

std::span<const float> Prefix(const TestVectors& vectors, const std::vector<float>& query,
                              int levels) {
  return std::span<const float>(query).first(static_cast<size_t>(vectors.sizes.end(levels - 1)));
}

// At every width, and for several k, filters and limits on the score, by a sample and by given
// plans. Returns in how many searches the funnel read codes.
int ExpectStoredEqualsBruteForce(const TestVectors& vectors,
                                 const std::vector<std::vector<float>>& queries) {
  const auto index = Build(vectors);
  const int64_t items = vectors.rows - 1;
  std::vector<int32_t> odd;
  for (int32_t item = 1; item <= items; item += 2) odd.push_back(item);
  const ItemFilter half = ItemFilter::Excluding(items, odd);
  const std::vector<int32_t> few = {1, static_cast<int32_t>(items)};
  const ItemFilter rare = ItemFilter::Allowing(items, few);
  const ItemFilter none = ItemFilter::Allowing(items, std::span<const int32_t>());
  int funnels = 0;
  for (size_t q = 0; q < queries.size(); ++q) {
    for (int levels = 1; levels <= vectors.sizes.levels(); ++levels) {
      const auto query = Prefix(vectors, queries[q], levels);
      const std::vector<ScoredItem> ranked = RankAll(vectors, levels, query);
      const auto best = Best(ranked, {.k = 20});
      const std::vector<SearchOptions> cases = {
          {.k = 1},
          {.k = 10},
          {.k = 100},
          {.k = items + 5},
          {.k = 10, .filter = &half},
          {.k = 10, .filter = &rare},
          {.k = 10, .filter = &none},
          {.k = 50, .min_score = best.back().score},
          {.k = 10, .filter = &half, .min_score = best.front().score},
      };
      const std::vector<NestedPlan> plans = {
          {}, {.for_all = 1, .for_left = 1}, {.for_all = 1, .for_left = 99}, {.for_all = 3}};
      for (size_t i = 0; i < cases.size() * plans.size(); ++i) {
        const size_t c = i / plans.size();
        NestedSearchStats stats;
        const auto result =
            index->Search(query, levels, cases[c], {.plan = plans[i % plans.size()]}, &stats);
        if (!result.ok()) {
          ADD_FAILURE() << result.status();
          return funnels;
        }
        EXPECT_TRUE(result->exact);
        EXPECT_EQ(result->items, Best(ranked, cases[c]))
            << "query " << q << ", levels " << levels << ", case " << c << ", plan "
            << i % plans.size() << ", steps " << stats.steps_read;
        funnels += stats.steps_read > 0 ? 1 : 0;
      }
    }
  }
  return funnels;
}

// As they are and, where there are halves for them, rounded to float16.
int ExpectEqualsBruteForce(const TestVectors& vectors,
                           const std::vector<std::vector<float>>& queries) {
  int funnels = ExpectStoredEqualsBruteForce(vectors, queries);
  const bool fits = std::ranges::all_of(vectors.levels, [](const auto& level) {
    return std::ranges::all_of(level, [](float value) { return std::abs(value) <= kLargestHalf; });
  });
  if (!fits) return funnels;
  TestVectors rounded = vectors;
  rounded.Round();
  const ::testing::ScopedTrace trace(__FILE__, __LINE__, "float16");
  return std::min(funnels, ExpectStoredEqualsBruteForce(rounded, queries));
}

std::vector<std::vector<float>> GaussianQueries(int count, size_t dim, Random& random) {
  std::vector<std::vector<float>> queries;
  for (int i = 0; i < count; ++i) queries.push_back(GaussianVector(dim, random));
  return queries;
}

// Clusters whose spread falls from column to column, as trained vectors' does.
TestVectors Clustered(int64_t items, std::vector<int> sizes, int clusters, Random& random) {
  TestVectors vectors = TestVectors::Zeros(items, std::move(sizes));
  const size_t dim = static_cast<size_t>(vectors.sizes.max_dim());
  std::vector<std::vector<float>> centres;
  for (int c = 0; c < clusters; ++c) centres.push_back(GaussianVector(dim, random));
  for (int64_t item = 1; item <= items; ++item) {
    const auto& centre = centres[static_cast<size_t>(random.Index(clusters))];
    for (int level = 0; level < vectors.sizes.levels(); ++level) {
      auto row = vectors.row(level, item);
      for (size_t c = 0; c < row.size(); ++c) {
        const size_t column = static_cast<size_t>(vectors.sizes.begin(level)) + c;
        const double spread = std::pow(1.0 + static_cast<double>(column), -0.5);
        row[c] = static_cast<float>(spread * (centre[column] + 0.5 * random.Normal()));
      }
    }
  }
  return vectors;
}

TEST(NestedIndex, EqualsBruteForceOnClusters) {
  Random random(1);
  const TestVectors vectors = Clustered(4000, {8, 16, 64, 128}, 20, random);
  EXPECT_GT(ExpectEqualsBruteForce(vectors, GaussianQueries(3, 128, random)), 20);
}

TEST(NestedIndex, ReadsAsManyStepsAsAPlanSays) {
  Random random(11);
  const TestVectors vectors = Clustered(4000, {64, 128}, 20, random);
  const auto index = Build(vectors);
  const auto query = GaussianVector(128, random);
  std::vector<int64_t> left;
  for (const int steps : {1, 2}) {
    NestedSearchStats stats;
    const NestedSearchOptions how = {.plan = {.for_all = steps, .for_left = steps}};
    ASSERT_TRUE(index->Search(query, 2, {.k = 10}, how, &stats).ok());
    EXPECT_EQ(stats.steps_read, steps);
    EXPECT_EQ(stats.steps_left, steps);
    left.push_back(stats.after_scan);
  }
  EXPECT_LT(left[1], left[0]);
}

TEST(NestedIndex, EqualsBruteForceWhereQueriesLookLikeItems) {
  Random random(2);
  const TestVectors vectors = Clustered(3000, {32, 96, 400}, 10, random);
  std::vector<std::vector<float>> queries;
  for (const int64_t item : {1, 1500, 3000}) {
    std::vector<float> query;
    for (int level = 0; level < 3; ++level) {
      const auto row = vectors.view().row(level, item);
      query.insert(query.end(), row.begin(), row.end());
    }
    queries.push_back(std::move(query));
  }
  EXPECT_GT(ExpectEqualsBruteForce(vectors, queries), 20);
}

TEST(NestedIndex, EqualsBruteForceOnNoise) {
  Random random(3);
  const TestVectors vectors = TestVectors::Gaussian(3000, {8, 24, 64, 300}, random);
  ExpectEqualsBruteForce(vectors, GaussianQueries(2, 300, random));
}

TEST(NestedIndex, EqualsBruteForceAtOddSizes) {
  Random random(4);
  ExpectEqualsBruteForce(Clustered(2500, {3, 5, 70, 77, 611}, 7, random),
                         GaussianQueries(2, 611, random));
  ExpectEqualsBruteForce(Clustered(2500, {333}, 7, random), GaussianQueries(2, 333, random));
  ExpectEqualsBruteForce(Clustered(2500, {2}, 7, random), GaussianQueries(2, 2, random));
}

TEST(NestedIndex, EqualsBruteForceWhereAllLiesInTheLastLevel) {
  Random random(5);
  TestVectors vectors = TestVectors::Zeros(2000, {8, 32, 256});
  for (int64_t item = 1; item <= 2000; ++item) {
    for (float& value : vectors.row(2, item)) value = static_cast<float>(random.Normal());
  }
  ExpectEqualsBruteForce(vectors, GaussianQueries(2, 256, random));
}

TEST(NestedIndex, EqualsBruteForceWhereTheFirstLevelsAreTiny) {
  Random random(6);
  TestVectors vectors = TestVectors::Gaussian(2000, {8, 64, 128}, random);
  for (int64_t item = 1; item <= 2000; ++item) {
    for (float& value : vectors.row(0, item)) value *= 1e-25f;
    for (float& value : vectors.row(1, item)) value *= 1e-12f;
  }
  ExpectEqualsBruteForce(vectors, GaussianQueries(2, 128, random));
}

TEST(NestedIndex, BreaksTiesByItemNumber) {
  Random random(7);
  TestVectors vectors = Clustered(3000, {16, 64}, 5, random);
  for (int64_t item = 31; item <= 3000; ++item) {  // 30 different vectors, 100 times each
    for (int level = 0; level < 2; ++level) {
      const auto source = vectors.row(level, 1 + item % 30);
      std::copy(source.begin(), source.end(), vectors.row(level, item).begin());
    }
  }
  ExpectEqualsBruteForce(vectors, GaussianQueries(3, 64, random));
}

TEST(NestedIndex, OrdersScoresThatDifferByOneRounding) {
  Random random(8);
  TestVectors vectors = TestVectors::Gaussian(3000, {64}, random);
  for (int64_t item = 2; item <= 3000; ++item) {
    const auto row = vectors.row(0, item);
    std::copy_n(vectors.row(0, 1).begin(), 64, row.begin());
    float& changed = row[static_cast<size_t>(item % 64)];
    for (int64_t step = 0; step < item % 5; ++step) changed = std::nextafter(changed, 10.0f);
  }
  ExpectEqualsBruteForce(vectors, GaussianQueries(3, 64, random));
}

TEST(NestedIndex, EqualsBruteForceOnZeros) {
  Random random(9);
  ExpectEqualsBruteForce(TestVectors::Zeros(2000, {8, 64}), GaussianQueries(2, 64, random));
  std::vector<std::vector<float>> zero = {std::vector<float>(64, 0.0f)};
  ExpectEqualsBruteForce(Clustered(2000, {8, 64}, 5, random), zero);
  TestVectors mostly = TestVectors::Zeros(2000, {8, 64});
  for (float& value : mostly.row(1, 77)) value = 1;
  ExpectEqualsBruteForce(mostly, GaussianQueries(2, 64, random));
}

TEST(NestedIndex, SurvivesHugeAndTinyNorms) {
  Random random(10);
  for (const float scale : {1e-44f, 1e-40f, 1e-30f, 1e18f, 1e30f, 1e37f}) {
    TestVectors vectors = Clustered(2000, {16, 80}, 5, random);
    for (int64_t item = 1; item <= 2000; ++item) {
      for (int level = 0; level < 2; ++level) {
        for (float& value : vectors.row(level, item)) value *= scale;
      }
    }
    std::vector<std::vector<float>> queries = GaussianQueries(2, 80, random);
    for (float& value : queries[1]) value *= scale;
    ExpectEqualsBruteForce(vectors, queries);
  }
}

TEST(NestedIndex, EqualsBruteForceWhereNormsDifferWildly) {
  Random random(11);
  TestVectors vectors = Clustered(3000, {16, 80}, 5, random);
  for (int64_t item = 1; item <= 3000; ++item) {
    const float scale = std::pow(10.0f, static_cast<float>(item % 75) - 37);
    for (int level = 0; level < 2; ++level) {
      for (float& value : vectors.row(level, item)) value *= scale;
    }
  }
  for (float& value : vectors.row(1, 3000)) value = std::numeric_limits<float>::max();
  for (float& value : vectors.row(1, 2999)) value = std::numeric_limits<float>::lowest();
  ExpectEqualsBruteForce(vectors, GaussianQueries(3, 80, random));
}

TEST(NestedIndex, AFewItemsAreEnough) {
  Random random(12);
  for (const int64_t items : {1, 2, 31, 33, 200}) {
    const TestVectors vectors = TestVectors::Gaussian(items, {8, 40}, random);
    const auto index = Build(vectors);
    const std::vector<float> query = GaussianVector(40, random);
    for (const int64_t k : {1, 2, 300}) {
      const auto result = index->Search(query, 2, {.k = k});
      ASSERT_TRUE(result.ok()) << result.status();
      EXPECT_EQ(result->items, BruteForce(vectors, 2, query, {.k = k}));
    }
  }
}

TEST(NestedIndex, ScoresFewItemsOfMany) {
  Random random(13);
  const TestVectors vectors = Clustered(20000, {32, 64, 256}, 50, random);
  std::vector<float> queries = GaussianVector(256 * 40, random);
  const auto index = Build(vectors, queries);
  NestedSearchStats stats;
  const auto result =
      index->Search(std::span<const float>(queries).first(256), 3, {.k = 10}, {}, &stats);
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->exact);
  EXPECT_GT(stats.steps_read, 0);
  EXPECT_LT(result->rescored, 1000);
  EXPECT_LT(stats.bytes_read, 20000 * 256);
}

// Of widths and k in turn, for each of several numbers of threads.
void ExpectBatchEqualsBruteForce(const TestVectors& vectors, Random& random) {
  const auto index = Build(vectors);
  const std::vector<std::vector<float>> queries = GaussianQueries(37, 128, random);
  const ItemFilter filter = ItemFilter::Excluding(5000, std::vector<int32_t>{1, 2, 3});
  std::vector<NestedSearchRequest> requests;
  for (size_t i = 0; i < queries.size(); ++i) {
    const int levels = 1 + static_cast<int>(i % 3);
    requests.push_back(
        {Prefix(vectors, queries[i], levels),
         levels,
         {.k = static_cast<int64_t>(1 + i), .filter = i % 2 == 0 ? &filter : nullptr}});
  }
  for (const bool funnel : {false, true}) {
    for (const int threads : {1, 2, 5}) {
      omp_set_num_threads(threads);
      const auto results = index->SearchBatch(requests, {.funnel = funnel});
      ASSERT_TRUE(results.ok()) << results.status();
      ASSERT_EQ(results->size(), requests.size());
      for (size_t i = 0; i < requests.size(); ++i) {
        EXPECT_EQ((*results)[i].items,
                  BruteForce(vectors, requests[i].levels, requests[i].query, requests[i].options));
        EXPECT_TRUE((*results)[i].exact);
      }
    }
  }
  omp_set_num_threads(1);
  EXPECT_TRUE(index->SearchBatch({}).ok());
}

TEST(NestedIndex, ABatchOfMixedWidthsGivesWhatSingleSearchesGive) {
  Random random(14);
  TestVectors vectors = Clustered(5000, {16, 64, 128}, 20, random);
  ExpectBatchEqualsBruteForce(vectors, random);
  vectors.Round();
  ExpectBatchEqualsBruteForce(vectors, random);
}

TEST(NestedIndex, AtOneWidthManyQueriesGiveBitForBitWhatEachGivesAlone) {
  Random random(19);
  const TestVectors vectors = Clustered(5000, {16, 64, 128}, 20, random);
  const auto index = Build(vectors, GaussianVector(128 * 40, random));
  const ItemFilter filter = ItemFilter::Excluding(5000, std::vector<int32_t>{1, 2, 3});
  const std::vector<std::vector<float>> vectors_of_queries = GaussianQueries(40, 64, random);
  std::vector<IndexQuery> queries;
  for (size_t i = 0; i < vectors_of_queries.size(); ++i) {
    queries.push_back(
        {vectors_of_queries[i],
         {.k = static_cast<int64_t>(1 + i), .filter = i % 2 == 0 ? &filter : nullptr}});
  }
  for (const NestedIndex::Approximation& approximation :
       {NestedIndex::Approximation{}, NestedIndex::Approximation{.recall = 0.8f},
        NestedIndex::Approximation{.candidates = 50}}) {
    const auto at64 = NestedIndex::AtLevels(index, 2, approximation);
    ASSERT_TRUE(at64.ok()) << at64.status();
    const auto together = (*at64)->SearchBatch(queries);
    ASSERT_TRUE(together.ok()) << together.status();
    for (size_t i = 0; i < queries.size(); ++i) {
      const auto alone = (*at64)->Search(queries[i].query, queries[i].options);
      ASSERT_TRUE(alone.ok());
      EXPECT_EQ((*together)[i].items, alone->items);
    }
  }
}

TEST(NestedIndex, ReachesARecallTargetWithLessWork) {
  Random random(15);
  const TestVectors vectors = Clustered(20000, {32, 256}, 200, random);
  std::vector<float> queries = GaussianVector(256 * 60, random);
  for (size_t i = 0; i < queries.size(); ++i) {
    queries[i] *= static_cast<float>(std::pow(1.0 + static_cast<double>(i % 256), -0.5));
  }
  const auto index = Build(vectors, std::span<const float>(queries).first(256 * 40));
  const auto how = index->FindOptions(2, 10, {.recall = 0.9f});
  ASSERT_TRUE(how.ok()) << how.status();
  EXPECT_LT(how->share, 1);
  int64_t found = 0;
  int64_t exact_bytes = 0;
  int64_t bytes = 0;
  for (size_t i = 40; i < 60; ++i) {
    const auto query = std::span<const float>(queries).subspan(i * 256, 256);
    NestedSearchStats exact_stats, stats;
    const auto exact = index->Search(query, 2, {.k = 10}, {}, &exact_stats);
    const auto result = index->Search(query, 2, {.k = 10}, *how, &stats);
    ASSERT_TRUE(result.ok());
    EXPECT_FALSE(result->exact);
    ASSERT_EQ(result->items.size(), 10u);
    for (const ScoredItem& item : result->items) {
      EXPECT_EQ(item.score, CanonicalScore(query, vectors.view(), 2, item.item));
      found += std::count(exact->items.begin(), exact->items.end(), item);
    }
    exact_bytes += exact_stats.bytes_read;
    bytes += stats.bytes_read;
  }
  EXPECT_GE(found, 160);
  EXPECT_LT(bytes, exact_bytes);
}

TEST(NestedIndex, ACandidateLimitIsKept) {
  Random random(16);
  const TestVectors vectors = Clustered(5000, {64}, 20, random);
  const auto index = Build(vectors);
  const auto result = index->Search(GaussianVector(64, random), 1, {.k = 10}, {.most_scored = 60});
  ASSERT_TRUE(result.ok());
  EXPECT_FALSE(result->exact);
  EXPECT_LE(result->rescored, 60);
  EXPECT_EQ(result->items.size(), 10u);
}

TEST(NestedIndex, RefusesBadSearches) {
  Random random(17);
  const TestVectors vectors = TestVectors::Gaussian(10, {8, 16}, random);
  const auto index = Build(vectors);
  std::vector<float> query(8, 1.0f);
  const auto message = [&](int levels, const SearchOptions& options) {
    const auto result = index->Search(query, levels, options);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(result.status().message());
  };
  EXPECT_THAT(message(1, {.k = 0}), HasSubstr("k is 0"));
  EXPECT_THAT(message(0, {}), HasSubstr("levels is 0; this index holds 1 to 2 (sizes 8,16)"));
  EXPECT_THAT(message(3, {}), HasSubstr("levels is 3"));
  EXPECT_THAT(message(2, {}), HasSubstr("8 values; this index is 16 wide"));
  const ItemFilter other = ItemFilter::Excluding(11, std::span<const int32_t>());
  EXPECT_THAT(message(1, {.filter = &other}), HasSubstr("11 items; this index has 10"));
  EXPECT_THAT(message(1, {.min_score = std::nanf("")}), HasSubstr("min_score"));
  query[3] = std::nanf("");
  EXPECT_THAT(message(1, {}), HasSubstr("value 3 of the query is nan"));
  const std::vector<NestedSearchRequest> requests = {
      {std::span<const float>(query).first(0), 1, {}}};
  EXPECT_THAT(std::string(index->SearchBatch(requests).status().message()),
              HasSubstr("request 0: the query has 0 values"));
  EXPECT_THAT(std::string(index->FindOptions(1, 10, {.recall = 0}).status().message()),
              HasSubstr("recall is 0"));
  EXPECT_THAT(std::string(index->FindOptions(1, 10, {.candidates = -1}).status().message()),
              HasSubstr("candidates is -1"));
}

TEST(NestedIndex, RefusesBadVectors) {
  Random random(18);
  TestVectors vectors = TestVectors::Gaussian(700, {8, 16}, random);
  const auto message = [&](const NestedIndex::Options& options) {
    const auto index = NestedIndex::Create(vectors.view(), options, nullptr);
    EXPECT_EQ(index.status().code(), absl::StatusCode::kInvalidArgument) << index.status();
    return std::string(index.status().message());
  };
  const std::vector<float> queries(20, std::nanf(""));
  EXPECT_THAT(message({.queries = queries}), HasSubstr("no multiple of dim 16"));
  EXPECT_THAT(message({.queries = std::span<const float>(queries).first(16)}), HasSubstr("nan"));
  vectors.row(1, 641)[2] = std::nanf("");
  EXPECT_THAT(message({}), HasSubstr("item 641 has nan in column 10"));
}

TEST(NestedIndex, TheInterfaceAtOneWidthSearchesTheSameStore) {
  Random random(19);
  const TestVectors vectors = Clustered(3000, {16, 64}, 10, random);
  const auto created = NestedIndex::Create(vectors.view(), {}, nullptr);  // with measuring
  ASSERT_TRUE(created.ok()) << created.status();
  const auto narrow = NestedIndex::AtLevels(*created, 1, {});
  ASSERT_TRUE(narrow.ok()) << narrow.status();
  EXPECT_EQ((*narrow)->dim(), 16);
  EXPECT_EQ((*narrow)->items(), 3000);
  EXPECT_TRUE((*narrow)->exact());
  EXPECT_EQ((*narrow)->description(), "nested");
  EXPECT_LE((*created)->bytes(), 3000 * (64 + 4 + 16 + 16));
  const std::vector<float> query = GaussianVector(16, random);
  EXPECT_EQ((*narrow)->Search(query, {.k = 7})->items, BruteForce(vectors, 1, query, {.k = 7}));
}

TEST(BuildNestedIndex, ReadsItsSettings) {
  Random random(20);
  const TestVectors vectors = Clustered(3000, {16, 64}, 10, random);
  const auto exact = BuildNestedIndex(vectors.view(), 2, {}, nullptr);
  ASSERT_TRUE(exact.ok()) << exact.status();
  EXPECT_EQ((*exact)->dim(), 64);
  EXPECT_TRUE((*exact)->exact());
  const std::vector<float> query = GaussianVector(64, random);
  EXPECT_EQ((*exact)->Search(query, {.k = 7})->items, BruteForce(vectors, 2, query, {.k = 7}));
  const auto limited =
      BuildNestedIndex(vectors.view(), 2, {.parameters = "recall=0.9, candidates=70"}, nullptr);
  ASSERT_TRUE(limited.ok()) << limited.status();
  EXPECT_FALSE((*limited)->exact());
  EXPECT_THAT((*limited)->description(), HasSubstr("scores at most 70"));
}

TEST(BuildNestedIndex, RefusesSettingsThatItDoesNotKnow) {
  Random random(21);
  const TestVectors vectors = TestVectors::Gaussian(100, {8}, random);
  const auto message = [&](const std::string& parameters, int levels = 1) {
    const auto index =
        BuildNestedIndex(vectors.view(), levels, {.parameters = parameters}, nullptr);
    EXPECT_EQ(index.status().code(), absl::StatusCode::kInvalidArgument) << index.status();
    return std::string(index.status().message());
  };
  EXPECT_THAT(message("nprobe=4"), HasSubstr("\"nprobe=4\": known are recall=<0..1>"));
  EXPECT_THAT(message("recall=high"), HasSubstr("\"recall=high\""));
  EXPECT_THAT(message("recall=1.5"), HasSubstr("recall is 1.5"));
  EXPECT_THAT(message("candidates=-3"), HasSubstr("candidates is -3"));
  EXPECT_THAT(message("", 2), HasSubstr("levels is 2"));
  EXPECT_THAT(message("", 0), HasSubstr("levels is 0"));
}

}  // namespace
}  // namespace nestrec
