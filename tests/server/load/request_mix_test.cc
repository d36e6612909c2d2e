#include "server/load/request_mix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nestrec/v1/recommend.pb.h"

namespace nestrec {
namespace {

v1::RecommendRequest Parse(const LoadRequest& request) {
  v1::RecommendRequest parsed;
  EXPECT_TRUE(parsed.ParseFromString(request.bytes));
  return parsed;
}

TEST(RequestMix, HistoriesAreDrawnFromTheItemsAndFixedByTheSeed) {
  const ItemIds items = {"a", "b", "c"};
  Random first(1), again(1);
  const auto histories = SampleHistories(items, 50, 20, first);
  ASSERT_EQ(histories.size(), 50u);
  std::map<std::string, int> seen;
  for (const ItemIds& history : histories) {
    EXPECT_EQ(history.size(), 20u);
    for (const std::string& id : history) ++seen[id];
  }
  EXPECT_EQ(seen.size(), 3u);
  for (const auto& [id, count] : seen) EXPECT_NEAR(count, 333, 90) << id;
  EXPECT_EQ(histories, SampleHistories(items, 50, 20, again));
}

TEST(RequestMix, StatelessRequestsCarryTheHistoryAndWhatTheFlagsSay) {
  const auto requests = MakeRequests(
      {.k = 7, .tier = "bronze", .latency_budget = absl::Milliseconds(20), .min_quality = 0.9},
      {{"a", "b"}, {"c"}});
  ASSERT_EQ(requests.size(), 2u);
  const v1::RecommendRequest request = Parse(requests[0]);
  EXPECT_THAT(request.history_item_ids(), testing::ElementsAre("a", "b"));
  EXPECT_EQ(request.k(), 7u);
  EXPECT_EQ(request.tier(), "bronze");
  EXPECT_EQ(request.latency_budget().nanos(), 20'000'000);
  EXPECT_EQ(request.min_quality(), 0.9);
  EXPECT_TRUE(request.user_id().empty());
  EXPECT_THAT(Parse(requests[1]).history_item_ids(), testing::ElementsAre("c"));
}

TEST(RequestMix, SessionRequestsCarryTheUserAlone) {
  const auto requests = MakeRequests({.dim = 64, .sessions = true}, {{"a"}, {"b"}});
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(Parse(requests[1]).user_id(), LoadUser(1));
  EXPECT_EQ(Parse(requests[1]).dim(), 64);
  EXPECT_EQ(Parse(requests[1]).history_item_ids_size(), 0);
}

TEST(RequestMix, GetModelInfoIsOneEmptyRequest) {
  const auto requests = MakeRequests({.rpc = LoadRequest::Rpc::kGetModelInfo}, {});
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].bytes, "");
}

}  // namespace
}  // namespace nestrec
