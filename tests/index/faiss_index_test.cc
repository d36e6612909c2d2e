#include "index/faiss_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <ostream>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "index/item_filter.h"
#include "index/score.h"
#include "tests/index/test_vectors.h"

namespace nestrec {

// For GoogleTest's messages.
void PrintTo(const ScoredItem& item, std::ostream* out) { *out << item.item << ":" << item.score; }

namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// What ranking all items by the definition of the canonical score gives. Written apart from the
// product's code, but for the score.
std::vector<ScoredItem> BruteForce(const TestVectors& vectors, int levels,
                                   std::span<const float> query, const SearchOptions& options) {
  const LevelVectors view = vectors.view();
  std::vector<ScoredItem> all;
  for (int64_t item = 1; item < vectors.rows; ++item) {
    const float score = CanonicalScore(query, view, levels, item);
    if ((options.filter == nullptr || options.filter->Allows(item)) &&
        (!options.min_score.has_value() || score >= *options.min_score)) {
      all.push_back({static_cast<int32_t>(item), score});
    }
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return a.score > b.score; });
  all.resize(std::min(all.size(), static_cast<size_t>(options.k)));
  return all;
}

std::unique_ptr<const ItemIndex> Build(const TestVectors& vectors, int levels,
                                       FaissIndexOptions options = {}) {
  auto index = BuildFaissIndex(vectors.view(), levels, options, nullptr);
  EXPECT_TRUE(index.ok()) << index.status();
  return index.ok() ? *std::move(index) : nullptr;
}

void ExpectEqualsBruteForce(const TestVectors& vectors, int levels, std::span<const float> query,
                            const SearchOptions& options) {
  const auto index = Build(vectors, levels);
  const auto result = index->Search(query, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->exact);
  EXPECT_EQ(result->items, BruteForce(vectors, levels, query, options));
}

TEST(FaissFlat, EqualsBruteForceAtEveryDimAndK) {
  Random random(1);
  const TestVectors vectors = TestVectors::Gaussian(2000, {8, 24, 64}, random);
  const std::vector<float> query = GaussianVector(64, random);
  for (int levels = 1; levels <= 3; ++levels) {
    const auto prefix =
        std::span<const float>(query).first(static_cast<size_t>(vectors.sizes.end(levels - 1)));
    for (const int64_t k : {1, 10, 100, 500, 2000, 5000}) {
      ExpectEqualsBruteForce(vectors, levels, prefix, {.k = k});
    }
  }
}

TEST(FaissFlat, DoesNotRankEverythingWhereTheCandidatesSettleIt) {
  Random random(2);
  const TestVectors vectors = TestVectors::Gaussian(5000, {64}, random);
  const auto result = Build(vectors, 1)->Search(GaussianVector(64, random), {.k = 10});
  ASSERT_TRUE(result.ok());
  EXPECT_LT(result->rescored, 500);
}

TEST(FaissFlat, NeverReturnsThePaddingRow) {
  Random random(3);
  const TestVectors vectors = TestVectors::Gaussian(100, {8}, random);
  const std::vector<float> query(8, 1.0f);  // the padding row would score 8e6
  const auto result = Build(vectors, 1)->Search(query, {.k = 1000});
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->items.size(), 100u);
  for (const ScoredItem& item : result->items) {
    EXPECT_GE(item.item, 1);
    EXPECT_LE(item.item, 100);
  }
}

TEST(FaissFlat, BreaksTiesByItemNumber) {
  Random random(4);
  TestVectors vectors = TestVectors::Gaussian(3000, {16, 32}, random);
  for (int64_t item = 1; item <= 3000; ++item) {  // 30 different vectors, 100 times each
    for (int level = 0; level < 2; ++level) {
      const auto source = vectors.row(level, 1 + item % 30);
      if (item > 30) std::copy(source.begin(), source.end(), vectors.row(level, item).begin());
    }
  }
  for (int query = 0; query < 5; ++query) {
    for (const int64_t k : {1, 7, 99, 101, 250}) {
      ExpectEqualsBruteForce(vectors, 2, GaussianVector(32, random), {.k = k});
    }
  }
}

TEST(FaissFlat, OrdersScoresThatDifferByOneRounding) {
  Random random(5);
  TestVectors vectors = TestVectors::Gaussian(4000, {64}, random);
  for (int64_t item = 2; item <= 4000; ++item) {
    const auto row = vectors.row(0, item);
    std::copy_n(vectors.row(0, 1).begin(), 64, row.begin());
    float& changed = row[static_cast<size_t>(item % 64)];
    for (int64_t step = 0; step < item % 5; ++step) {
      changed = std::nextafter(changed, 10.0f);
    }
  }
  for (int query = 0; query < 5; ++query) {
    ExpectEqualsBruteForce(vectors, 1, GaussianVector(64, random), {.k = 50});
  }
}

TEST(FaissFlat, RanksZerosByItemNumber) {
  Random random(6);
  const TestVectors zeros = TestVectors::Zeros(1000, {8, 16});
  ExpectEqualsBruteForce(zeros, 2, GaussianVector(16, random), {.k = 10});
  const TestVectors vectors = TestVectors::Gaussian(1000, {8, 16}, random);
  ExpectEqualsBruteForce(vectors, 2, std::vector<float>(16, 0.0f), {.k = 10});
}

TEST(FaissFlat, SurvivesHugeAndTinyNorms) {
  Random random(7);
  for (const float scale : {1e-30f, 1e-40f, 1e18f, 1e19f, 1e37f}) {
    TestVectors vectors = TestVectors::Gaussian(1000, {16}, random);
    for (int64_t item = 1; item <= 1000; ++item) {
      for (float& value : vectors.row(0, item)) value *= scale;
    }
    std::vector<float> query = GaussianVector(16, random);
    for (float& value : query) value *= scale;
    ExpectEqualsBruteForce(vectors, 1, query, {.k = 20});
  }
}

TEST(FaissFlat, FindsWhatAllLiesInTheLastLevel) {
  Random random(8);
  TestVectors vectors = TestVectors::Zeros(2000, {8, 64});
  for (int64_t item = 1; item <= 2000; ++item) {
    for (float& value : vectors.row(1, item)) value = static_cast<float>(random.Normal());
  }
  const std::vector<float> query = GaussianVector(64, random);
  ExpectEqualsBruteForce(vectors, 2, query, {.k = 10});
  ExpectEqualsBruteForce(vectors, 1, std::span(query).first(8), {.k = 10});
}

TEST(FaissFlat, ReturnsKWhenKRemainAfterExclusions) {
  Random random(9);
  const TestVectors vectors = TestVectors::Gaussian(1000, {16}, random);
  const std::vector<float> query = GaussianVector(16, random);
  for (const int excluded : {1, 10, 500, 990, 999, 1000}) {
    // The best ones: exclusion after a search for k would leave too few.
    std::vector<int32_t> numbers;
    for (const ScoredItem& item : BruteForce(vectors, 1, query, {.k = excluded})) {
      numbers.push_back(item.item);
    }
    const ItemFilter filter = ItemFilter::Excluding(1000, numbers);
    ExpectEqualsBruteForce(vectors, 1, query, {.k = 10, .filter = &filter});
    const auto result = Build(vectors, 1)->Search(query, {.k = 10, .filter = &filter});
    EXPECT_EQ(result->items.size(), static_cast<size_t>(std::min(10, 1000 - excluded)));
  }
}

TEST(FaissFlat, IsExactAtEverySelectivity) {
  Random random(18);
  const TestVectors vectors = TestVectors::Gaussian(20'000, {16}, random);
  const auto index = Build(vectors, 1);
  for (const double share : {0.0, 0.0001, 0.001, 0.01, 0.02, 0.1, 0.5, 1.0}) {
    std::vector<int32_t> allowed;
    for (int32_t item = 1; item <= 20'000; ++item) {
      if (random.Uniform() < share) allowed.push_back(item);
    }
    const ItemFilter filter = ItemFilter::Allowing(20'000, allowed);
    const std::vector<float> query = GaussianVector(16, random);
    for (const int64_t k : {1, 10, 1000}) {
      const SearchOptions options = {.k = k, .filter = &filter};
      const auto result = index->Search(query, options);
      ASSERT_TRUE(result.ok()) << result.status();
      EXPECT_TRUE(result->exact);
      EXPECT_EQ(result->items, BruteForce(vectors, 1, query, options));
    }
  }
}

TEST(FaissFlat, AppliesMinScore) {
  Random random(10);
  const TestVectors vectors = TestVectors::Gaussian(1000, {16}, random);
  const std::vector<float> query = GaussianVector(16, random);
  const auto best = BruteForce(vectors, 1, query, {.k = 5});
  ExpectEqualsBruteForce(vectors, 1, query, {.k = 100, .min_score = best.back().score});
  ExpectEqualsBruteForce(vectors, 1, query, {.k = 100, .min_score = 1e9f});
  ExpectEqualsBruteForce(vectors, 1, query, {.k = 100, .min_score = -1e9f});
}

TEST(FaissFlat, RefusesBadSearches) {
  Random random(11);
  const TestVectors vectors = TestVectors::Gaussian(10, {8}, random);
  const auto index = Build(vectors, 1);
  std::vector<float> query(8, 1.0f);
  const auto message = [&](std::span<const float> query, const SearchOptions& options) {
    const auto result = index->Search(query, options);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(result.status().message());
  };
  EXPECT_THAT(message(query, {.k = 0}), HasSubstr("k is 0"));
  EXPECT_THAT(message(query, {.k = -5}), HasSubstr("k is -5"));
  EXPECT_THAT(message(std::span(query).first(7), {}), HasSubstr("7 values; this index is 8 wide"));
  const ItemFilter other = ItemFilter::Excluding(11, {});
  EXPECT_THAT(message(query, {.filter = &other}), HasSubstr("11 items; this index has 10"));
  EXPECT_THAT(message(query, {.min_score = std::nanf("")}), HasSubstr("min_score"));
  query[3] = std::nanf("");
  EXPECT_THAT(message(query, {}), HasSubstr("value 3 of the query is nan"));
  query[3] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(message(query, {}), HasSubstr("value 3 of the query is inf"));
}

TEST(FaissBuild, RefusesBadVectorsAndStrings) {
  Random random(12);
  TestVectors vectors = TestVectors::Gaussian(100, {8, 16}, random);
  const auto message = [&](int levels, const FaissIndexOptions& options) {
    const auto index = BuildFaissIndex(vectors.view(), levels, options, nullptr);
    EXPECT_EQ(index.status().code(), absl::StatusCode::kInvalidArgument) << index.status();
    return std::string(index.status().message());
  };
  EXPECT_THAT(message(0, {}), HasSubstr("levels is 0"));
  EXPECT_THAT(message(3, {}), HasSubstr("levels is 3"));
  EXPECT_THAT(message(1, {.factory = "Flatt"}), HasSubstr("\"Flatt\""));
  EXPECT_THAT(message(1, {.factory = ""}), HasSubstr("100 items of dim 8"));
  EXPECT_THAT(message(1, {.factory = "IVF1024,Flat"}), HasSubstr("IVF1024,Flat"));
  EXPECT_THAT(message(1, {.factory = "IDMap,Flat"}), HasSubstr("add does not make sense"));
  EXPECT_THAT(message(1, {.factory = "IDMap,Flat"}), Not(HasSubstr(".cpp")));
  EXPECT_THAT(message(1, {.factory = "HNSW16", .parameters = "nprobes=3"}), HasSubstr("nprobes=3"));
  vectors.row(1, 7)[2] = std::nanf("");
  EXPECT_THAT(message(2, {}), HasSubstr("item 7 has nan in column 10"));
  EXPECT_TRUE(BuildFaissIndex(vectors.view(), 1, {}, nullptr).ok());  // the wide level is not read
  vectors.rows = 1;
  EXPECT_THAT(message(1, {}), HasSubstr("1 rows"));
  vectors.rows = 50;
  EXPECT_THAT(message(1, {}), HasSubstr("50 rows of 8 need 400"));
}

TEST(FaissBuild, FlatHoldsOneCopyOfItsColumns) {
  Random random(13);
  const TestVectors vectors = TestVectors::Gaussian(1000, {8, 64}, random);
  EXPECT_GE(Build(vectors, 2)->bytes(), 1000 * 64 * 4);
  EXPECT_LE(Build(vectors, 2)->bytes(), 1000 * 64 * 4 + 1000);
  EXPECT_LE(Build(vectors, 1)->bytes(), 1000 * 8 * 4 + 1000);
}

TEST(FaissBuild, IsTrainedWithAsManyItemsAsItsListsAndCodesTake) {
  EXPECT_EQ(TrainingItems(1, 0), 1);
  EXPECT_EQ(TrainingItems(1'000'000, 0), 1'000'000);
  EXPECT_EQ(TrainingItems(100'000'000, 0), 1 << 20);
  EXPECT_EQ(TrainingItems(100'000'000, 1000), 1 << 20);
  EXPECT_EQ(TrainingItems(100'000'000, 65'536), 1 << 24);
  EXPECT_EQ(TrainingItems(10'000'000, 65'536), 10'000'000);
}

// More items than an index is trained with, and the last ones unlike the first: a part that did
// not know them would have cut their values off.
TEST(FaissBuild, ThePartThatItIsTrainedWithIsOfAllItems) {
  constexpr int64_t kItems = 1'300'000;
  ASSERT_LT(TrainingItems(kItems, 0), kItems);
  Random random(11);
  TestVectors vectors = TestVectors::Gaussian(kItems, {8}, random);
  for (int64_t item = 1; item <= kItems; ++item) {
    vectors.row(0, item)[0] = 20 * static_cast<float>(item) / static_cast<float>(kItems);
  }
  const std::vector<float> query(8, 1.0f);
  const SearchOptions options{.k = 10};
  const std::vector<ScoredItem> best = BruteForce(vectors, 1, query, options);
  const std::vector<std::pair<const char*, const char*>> kinds = {{"SQ8", ""},
                                                                  {"IVF4,SQ8", "nprobe=4"}};
  for (const auto& [factory, parameters] : kinds) {
    const auto index = Build(vectors, 1, {.factory = factory, .parameters = parameters});
    ASSERT_NE(index, nullptr);
    const auto result = index->Search(query, options);
    ASSERT_TRUE(result.ok()) << result.status();
    int64_t found = 0;
    for (const ScoredItem& item : best) {
      found += std::count(result->items.begin(), result->items.end(), item);
    }
    EXPECT_GE(found, 9) << factory;
  }
}

TEST(FaissBuild, OneItemIsEnough) {
  Random random(14);
  const TestVectors vectors = TestVectors::Gaussian(1, {8}, random);
  ExpectEqualsBruteForce(vectors, 1, GaussianVector(8, random), {.k = 10});
}

struct ApproximateCase {
  std::string factory;
  std::string parameters;
  double recall;          // at least, of the true best 10 of 3,000
  double recall_of_many;  // of 20,000
};

// How the cases are called in test lists.
void PrintTo(const ApproximateCase& c, std::ostream* stream) {
  *stream << c.factory << " " << c.parameters;
}

class FaissApproximate : public ::testing::TestWithParam<ApproximateCase> {
 protected:
  // Training small indexes in parallel is mostly waiting at barriers, for long where other programs
  // have the cores.
  void SetUp() override { omp_set_num_threads(1); }
};

TEST_P(FaissApproximate, ReturnsKCanonicallyScoredAllowedItems) {
  Random random(15);
  const TestVectors vectors = TestVectors::Gaussian(3000, {16, 32}, random);
  const auto index =
      Build(vectors, 2, {.factory = GetParam().factory, .parameters = GetParam().parameters});
  EXPECT_FALSE(index->exact());
  int found = 0;
  int wanted = 0;
  for (int round = 0; round < 20; ++round) {
    const std::vector<float> query = GaussianVector(32, random);
    std::vector<int32_t> excluded;
    for (const ScoredItem& item : BruteForce(vectors, 2, query, {.k = round * 10})) {
      excluded.push_back(item.item);
    }
    const ItemFilter filter = ItemFilter::Excluding(3000, excluded);
    const SearchOptions options = {.k = 10, .filter = round == 0 ? nullptr : &filter};
    const auto result = index->Search(query, options);
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(result->items.size(), 10u);
    EXPECT_TRUE(std::is_sorted(result->items.begin(), result->items.end(), RanksBefore));
    std::set<int32_t> best;
    for (const ScoredItem& item : BruteForce(vectors, 2, query, options)) {
      best.insert(item.item);
    }
    for (const ScoredItem& item : result->items) {
      EXPECT_TRUE(filter.Allows(item.item));
      EXPECT_EQ(item.score, CanonicalScore(query, vectors.view(), 2, item.item));
      found += static_cast<int>(best.count(item.item));
      ++wanted;
    }
  }
  EXPECT_GE(found, GetParam().recall * wanted);
}

TEST_P(FaissApproximate, ReturnsAllThatRemainWhenFewDo) {
  Random random(16);
  const TestVectors vectors = TestVectors::Gaussian(3000, {16, 32}, random);
  const auto index =
      Build(vectors, 2, {.factory = GetParam().factory, .parameters = GetParam().parameters});
  std::vector<int32_t> excluded(2995);
  std::iota(excluded.begin(), excluded.end(), 6);
  const ItemFilter filter = ItemFilter::Excluding(3000, excluded);
  const auto result = index->Search(GaussianVector(32, random), {.k = 10, .filter = &filter});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->items.size(), 5u);
}

// A filter has nothing to do with the vectors here, so the recall that the settings give without
// one must hold with it: what passes is looked for as far as it takes.
TEST_P(FaissApproximate, KeepsKAndItsRecallAtEverySelectivity) {
  Random random(17);
  const TestVectors vectors = TestVectors::Gaussian(20'000, {16, 32}, random);
  const auto index =
      Build(vectors, 2, {.factory = GetParam().factory, .parameters = GetParam().parameters});
  for (const double share : {0.0001, 0.001, 0.01, 0.02, 0.1, 0.5, 1.0}) {
    int found = 0;
    int wanted = 0;
    for (int round = 0; round < 10; ++round) {
      std::vector<int32_t> allowed;
      for (int32_t item = 1; item <= 20'000; ++item) {
        if (random.Uniform() < share) allowed.push_back(item);
      }
      const ItemFilter filter = ItemFilter::Allowing(20'000, allowed);
      const std::vector<float> query = GaussianVector(32, random);
      const SearchOptions options = {.k = 10, .filter = &filter};
      const auto result = index->Search(query, options);
      ASSERT_TRUE(result.ok()) << result.status();
      const auto best = BruteForce(vectors, 2, query, options);
      ASSERT_EQ(result->items.size(), std::min<size_t>(10, allowed.size()));
      for (const ScoredItem& item : result->items) {
        EXPECT_TRUE(filter.Allows(item.item));
        found += static_cast<int>(std::count(best.begin(), best.end(), item));
        ++wanted;
      }
    }
    EXPECT_GE(found, GetParam().recall_of_many * wanted) << "share " << share;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, FaissApproximate,
                         ::testing::Values(ApproximateCase{"HNSW16", "efSearch=128", 0.9, 0.7},
                                           ApproximateCase{"IVF16,Flat", "nprobe=8", 0.7, 0.6},
                                           ApproximateCase{"IVF16,Flat", "nprobe=16", 0.999, 0.999},
                                           ApproximateCase{"SQ8", "", 0.99, 0.97},
                                           ApproximateCase{"RR32,IVF16,SQ8", "nprobe=16", 0.9, 0.9},
                                           ApproximateCase{"PQ16x4np", "", 0.5, 0.3}),
                         [](const auto& info) {
                           std::string name = info.param.factory + info.param.parameters;
                           std::erase_if(name, [](char c) {
                             return !std::isalnum(static_cast<unsigned char>(c));
                           });
                           return name;
                         });

}  // namespace
}  // namespace nestrec
