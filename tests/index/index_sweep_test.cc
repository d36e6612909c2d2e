#include "index/index_sweep.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/random.h"
#include "tests/index/test_vectors.h"

namespace nestrec {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

TEST(IndexSweep, FindsThatWiderLooksHaveMoreRecall) {
  omp_set_num_threads(1);  // small indexes trained in parallel mostly wait
  Random random(1);
  const TestVectors vectors = TestVectors::Gaussian(2000, {8, 16}, random);
  const std::vector<float> queries = GaussianVector(16 * 20, random);
  std::vector<std::string> told;
  const auto sweep =
      SweepIndexes(vectors.view(), queries,
                   {.levels = 2,
                    .k = 10,
                    .factories = {"IVF16,Flat", "HNSW8", "nested", "PQ8x4", "no such index"},
                    .seconds_per_setting = 0,
                    .progress = [&](const std::string& what) { told.push_back(what); }});
  ASSERT_TRUE(sweep.ok()) << sweep.status();
  ASSERT_EQ(sweep->indexes.size(), 6u);
  EXPECT_EQ(sweep->indexes[0].factory, "Flat");
  EXPECT_THAT(sweep->indexes[5].skipped, HasSubstr("no such index"));
  EXPECT_EQ(sweep->points[0].recall, 1);
  EXPECT_EQ(sweep->points[0].times_flat, 1);
  double last = 0;
  double widest = 0;
  for (const SweepPoint& point : sweep->points) {
    EXPECT_GT(point.queries_per_second, 0);
    EXPECT_GE(point.recall, 0);
    EXPECT_LE(point.recall, 1);
    if (point.factory == "IVF16,Flat") {  // more lists hold what fewer hold
      EXPECT_GE(point.recall, last);
      last = point.recall;
    }
    if (point.factory == "nested" && point.parameters.empty()) {
      EXPECT_EQ(point.recall, 1);
    }
    if (point.factory == "PQ8x4") widest = std::max(widest, point.recall);
  }
  EXPECT_EQ(last, 1);      // all lists
  EXPECT_GT(widest, 0.9);  // with 640 of 2,000 ranked again
  EXPECT_THAT(told, Contains("building HNSW8"));
}

TEST(IndexSweep, TheCheapestIsTheFastestThatReachesTheRecall) {
  IndexSweep sweep;
  sweep.points = {{.factory = "a", .recall = 1, .queries_per_second = 10},
                  {.factory = "b", .recall = 0.95, .queries_per_second = 50},
                  {.factory = "c", .recall = 0.94, .queries_per_second = 90}};
  EXPECT_EQ(CheapestWith(sweep, 0.95)->factory, "b");
  EXPECT_EQ(CheapestWith(sweep, 0.96)->factory, "a");
  EXPECT_EQ(CheapestWith(sweep, 0.1)->factory, "c");
  sweep.points.erase(sweep.points.begin());
  EXPECT_EQ(CheapestWith(sweep, 0.99), nullptr);
}

TEST(IndexSweep, RefusesBadQueriesAndK) {
  Random random(2);
  const TestVectors vectors = TestVectors::Gaussian(50, {8}, random);
  const std::vector<float> queries = GaussianVector(8, random);
  const auto message = [&](std::span<const float> of, const SweepOptions& options) {
    const auto sweep = SweepIndexes(vectors.view(), of, options);
    EXPECT_EQ(sweep.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(sweep.status().message());
  };
  EXPECT_THAT(message({}, {.levels = 1}), HasSubstr("0 values; each has 8"));
  EXPECT_THAT(message(std::span(queries).first(7), {.levels = 1}), HasSubstr("7 values"));
  EXPECT_THAT(message(queries, {.levels = 1, .k = 0}), HasSubstr("k is 0"));
  EXPECT_THAT(message(queries, {.levels = 2}), HasSubstr("levels is 2"));
}

TEST(IndexSweep, DefaultsFitTheNumberOfItems) {
  EXPECT_THAT(DefaultFactories(1'000'000, 128), Contains("IVF2048,Flat"));
  EXPECT_THAT(DefaultFactories(12'101, 256), Contains("IVF256,Flat"));
  EXPECT_THAT(DefaultFactories(12'101, 256), Contains("PQ128x4fs"));
  EXPECT_EQ(DefaultFactories(100, 8), (std::vector<std::string>{"nested", "HNSW32", "SQ8"}));
}

}  // namespace
}  // namespace nestrec
