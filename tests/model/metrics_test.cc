#include "model/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "model/metrics_json.h"

namespace nestrec {
namespace {

TEST(Metrics, MatchHandComputedValues) {
  // Ranks 1, 4, 10, 11 and "not found": five users.
  const RankingMetrics metrics =
      MetricsOfRanks({1, 4, 10, 11, std::numeric_limits<int64_t>::max()});
  EXPECT_EQ(metrics.users, 5);
  EXPECT_DOUBLE_EQ(metrics.recall[0], 2.0 / 5);  // @5
  EXPECT_DOUBLE_EQ(metrics.recall[1], 3.0 / 5);  // @10
  EXPECT_DOUBLE_EQ(metrics.recall[2], 4.0 / 5);  // @20
  EXPECT_DOUBLE_EQ(metrics.recall[3], 4.0 / 5);  // @50
  EXPECT_DOUBLE_EQ(metrics.ndcg[1], (1.0 + 1.0 / std::log2(5.0) + 1.0 / std::log2(11.0)) / 5);
  EXPECT_DOUBLE_EQ(metrics.mrr[1], (1.0 + 0.25 + 0.1) / 5);
}

TEST(Metrics, NobodyGivesZeros) {
  const RankingMetrics metrics = MetricsOfRanks({});
  EXPECT_EQ(metrics.users, 0);
  EXPECT_EQ(metrics.ndcg[3], 0.0);
}

TEST(Metrics, SurviveJson) {
  const std::vector<SizeMetrics> sizes = {{8, MetricsOfRanks({1, 7})},
                                          {16, MetricsOfRanks({2, 3})}};
  const auto read = MetricsFromJson(MetricsToJson(sizes));
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), 2u);
  EXPECT_EQ((*read)[1].dim, 16);
  EXPECT_NEAR((*read)[0].metrics.ndcg[1], sizes[0].metrics.ndcg[1], 1e-6);
  EXPECT_FALSE(MetricsFromJson(nlohmann::ordered_json::parse(R"([{"dim":8}])")).ok());
  EXPECT_FALSE(MetricsFromJson(nlohmann::ordered_json(3)).ok());
}

}  // namespace
}  // namespace nestrec
