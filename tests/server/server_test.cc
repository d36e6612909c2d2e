// What a server answers: against brute force, in-process.
#include "tests/server/server_fixture.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

TEST_F(ServerTest, EqualsBruteForceAtEveryDim) {
  for (const std::vector<int32_t>& history : std::vector<std::vector<int32_t>>{
           {7}, {3, 1, 2}, {9, 9, 9, 4}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}) {
    for (const int dim : {8, 24, 64}) {
      v1::RecommendRequest request = RequestFor(history);
      request.set_k(20);
      request.set_dim(dim);
      const v1::RecommendResponse response = MustRecommend(request);
      ExpectItems(response, BruteForce(history, dim, 20, {history.begin(), history.end()}));
      EXPECT_EQ(response.served().dim(), dim);
      EXPECT_EQ(response.served().tier(), "");
      EXPECT_EQ(response.served().why(), v1::WIDTH_REASON_EXPLICIT);
      EXPECT_TRUE(response.served().exact());
      EXPECT_EQ(response.served().model_version(), snapshot().version());
    }
  }
}

TEST_F(ServerTest, AnEmptyHistoryGetsTheLearnedPrior) {
  ExpectItems(MustRecommend({}), BruteForce({}, 64, 10, {}));
}

TEST_F(ServerTest, UnknownItemsAreSkippedAndReported) {
  v1::RecommendRequest request = RequestFor({4, 6});
  request.add_history_item_ids("no such item");
  request.add_exclude_item_ids("nor this");
  const v1::RecommendResponse response = MustRecommend(request);
  ExpectItems(response, BruteForce({4, 6}, 64, 10, {4, 6}));
  ASSERT_EQ(response.unknown_item_ids_size(), 1);
  EXPECT_EQ(response.unknown_item_ids(0), "no such item");
  EXPECT_EQ(response.unknown_item_count(), 1u);
  EXPECT_EQ(response.unknown_exclude_item_ids(0), "nor this");
}

TEST_F(ServerTest, AHistoryOfUnknownItemsIsAnEmptyOne) {
  v1::RecommendRequest request;
  request.add_history_item_ids("no such item");
  ExpectItems(MustRecommend(request), BruteForce({}, 64, 10, {}));
}

TEST_F(ServerTest, ExcludesTheWholeHistoryAndNotOnlyWhatTheModelReads) {
  std::vector<int32_t> history;
  for (const ScoredItem& item : BruteForce({1}, 64, 30, {})) {
    history.push_back(item.item);  // 30, of which the model reads 10
  }
  const v1::RecommendResponse response = MustRecommend(RequestFor(history));
  ExpectItems(response, BruteForce(history, 64, 10, {history.begin(), history.end()}));
}

TEST_F(ServerTest, IncludeSeenAndExcludeWorkTogether) {
  const std::vector<int32_t> history = {11, 12, 13};
  v1::RecommendRequest request = RequestFor(history);
  request.set_include_seen(true);
  const std::vector<ScoredItem> best = BruteForce(history, 64, 3, {});
  request.add_exclude_item_ids(RandomModelItemId(best[0].item));
  ExpectItems(MustRecommend(request), BruteForce(history, 64, 10, {best[0].item}));
}

TEST_F(ServerTest, ReturnsWhatRemainsWhenLittleDoes) {
  v1::RecommendRequest request;
  for (int item = 1; item <= kItems - 3; ++item) {
    request.add_exclude_item_ids(RandomModelItemId(item));
  }
  request.set_k(1000);
  EXPECT_EQ(MustRecommend(request).items_size(), 3);
  for (int item = kItems - 2; item <= kItems; ++item) {
    request.add_exclude_item_ids(RandomModelItemId(item));
  }
  EXPECT_EQ(MustRecommend(request).items_size(), 0);
}

// Items that the filter below allows: of brands 1 and 3 and a price over 100.
bool OfBrandOneOrThreeAndDear(int32_t item) {
  return (item % 5 == 1 || item % 5 == 3) && item >= 100;
}

TEST_F(ServerTest, FiltersByAttributesAtEveryDim) {
  std::set<int32_t> excluded = {301};
  for (int32_t item = 1; item <= kItems; ++item) {
    if (!OfBrandOneOrThreeAndDear(item)) excluded.insert(item);
  }
  v1::RecommendRequest request;
  request.add_exclude_item_ids(RandomModelItemId(301));
  request.set_k(500);
  v1::ItemFilterList& every = *request.mutable_filter()->mutable_every();
  v1::FieldValues& brands = *every.add_filters()->mutable_any_of();
  brands.set_field("brand");
  brands.add_values()->set_text("Brand 1");
  brands.add_values()->set_text("Brand 3");
  v1::FieldRange& range = *every.add_filters()->mutable_range();
  range.set_field("price");
  range.set_min(100);
  for (const int dim : {8, 24, 64}) {
    request.set_dim(dim);
    ExpectItems(MustRecommend(request), BruteForce({}, dim, 500, excluded));
  }
  request.set_tier("graph");
  EXPECT_EQ(MustRecommend(request).items_size(), static_cast<int>(kItems - excluded.size()));
  request.mutable_filter()->mutable_every()->mutable_filters(1)->mutable_range()->set_min(1e9);
  EXPECT_EQ(MustRecommend(request).items_size(), 0);
}

TEST_F(ServerTest, AllowsOnlyWhatIsListed) {
  v1::RecommendRequest request = RequestFor({4});
  std::set<int32_t> excluded = {4};
  for (int32_t item = 1; item <= kItems; ++item) excluded.insert(item);
  for (const int32_t item : {4, 9, 200}) {
    request.add_only_item_ids(RandomModelItemId(item));
    if (item != 4) excluded.erase(item);
  }
  request.add_only_item_ids("no such item");
  const v1::RecommendResponse response = MustRecommend(request);
  ExpectItems(response, BruteForce({4}, 64, 10, excluded));
  EXPECT_EQ(response.unknown_only_item_count(), 1u);
}

TEST_F(ServerTest, HoldsCapsAndPicksDiverseItems) {
  v1::RecommendRequest request;
  request.set_k(15);
  v1::GroupCap& cap = *request.add_caps();
  cap.set_field("brand");
  cap.set_most(2);
  std::map<int32_t, int> of_brand;
  std::vector<ScoredItem> expected;
  for (const ScoredItem& item : BruteForce({}, 64, kItems, {})) {
    if (++of_brand[item.item % 5] <= 2) expected.push_back(item);
  }
  ASSERT_EQ(expected.size(), 10u);  // two of each of five brands: fewer than k
  ExpectItems(MustRecommend(request), expected);

  request.clear_caps();
  request.mutable_diversity()->set_relevance(1);
  ExpectItems(MustRecommend(request), BruteForce({}, 64, 15, {}));
  request.mutable_diversity()->set_relevance(0);
  const v1::RecommendResponse diverse = MustRecommend(request);
  ASSERT_EQ(diverse.items_size(), 15);
  std::set<std::string> candidates;
  for (const ScoredItem& item : BruteForce({}, 64, 100, {})) {
    candidates.insert(RandomModelItemId(item.item));
  }
  for (const v1::RecommendedItem& item : diverse.items()) {
    EXPECT_EQ(candidates.erase(item.item_id()), 1u) << item.item_id();
  }
}

TEST_F(ServerTest, NamesTheBadPartOfAFilter) {
  v1::RecommendRequest request;
  request.mutable_filter()->mutable_none()->add_filters()->set_exists("colour");
  const auto violations = FieldViolationsOf(client_->Recommend(request).status());
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0].field, "filter.none.filters[0].exists");
  EXPECT_THAT(violations[0].description, HasSubstr("brand, item_id, price, title"));
}

TEST_F(ServerTest, AppliesMinScore) {
  const std::vector<ScoredItem> best = BruteForce({}, 64, 4, {});
  v1::RecommendRequest request;
  request.set_min_score(best.back().score);
  ExpectItems(MustRecommend(request), best);
}

TEST_F(ServerTest, ReturnsTheFieldsAskedFor) {
  v1::RecommendRequest request;
  request.set_k(kItems);
  for (const char* field : {"title", "price", "no such field"}) {
    request.add_fields(field);
  }
  const v1::RecommendResponse response = MustRecommend(request);
  int without_title = 0;
  for (const v1::RecommendedItem& item : response.items()) {
    without_title += item.fields().contains("title") ? 0 : 1;
    EXPECT_FALSE(item.fields().contains("no such field"));
    if (item.item_id() == "item-7") {
      EXPECT_EQ(item.fields().at("title"), "Title 7");
      EXPECT_EQ(item.fields().at("price"), "7.50");
    }
  }
  EXPECT_EQ(without_title, 1);  // item 5 has none
  EXPECT_TRUE(MustRecommend({}).items(0).fields().contains("title"));
}

TEST_F(ServerTest, TiersServeAtTheirDimWithTheirIndex) {
  v1::RecommendRequest request;
  request.set_tier("graph");
  const v1::RecommendResponse response = MustRecommend(request);
  EXPECT_EQ(response.items_size(), 10);
  EXPECT_EQ(response.served().dim(), 24);
  EXPECT_EQ(response.served().tier(), "graph");
  EXPECT_EQ(response.served().why(), v1::WIDTH_REASON_TIER);
  EXPECT_FALSE(response.served().exact());

  const v1::RecommendResponse by_default = MustRecommend({});
  EXPECT_EQ(by_default.served().tier(), "gold");
  EXPECT_EQ(by_default.served().why(), v1::WIDTH_REASON_DEFAULT);
}

TEST_F(ServerTest, ServesByBudgetAndQualityAndSaysWhy) {
  v1::RecommendRequest request = RequestFor({1, 2, 3});
  request.mutable_latency_budget()->set_seconds(3600);
  EXPECT_EQ(MustRecommend(request).served().dim(), 64);
  EXPECT_EQ(MustRecommend(request).served().why(), v1::WIDTH_REASON_DEFAULT);
  request.set_min_quality(0.5);  // gold has one dim, which is enough
  EXPECT_EQ(MustRecommend(request).served().dim(), 64);
  EXPECT_EQ(MustRecommend(request).served().why(), v1::WIDTH_REASON_QUALITY);
}

TEST_F(ServerTest, ReportsStageTimings) {
  const v1::RecommendResponse response = MustRecommend(RequestFor({1, 2, 3}));
  const auto nanos = [](const google::protobuf::Duration& duration) {
    return duration.seconds() * 1'000'000'000 + duration.nanos();
  };
  const v1::StageTimings& timings = response.served().timings();
  EXPECT_GT(nanos(timings.encode()), 0);
  EXPECT_GT(nanos(timings.search()), 0);
  EXPECT_GE(nanos(timings.total()),
            nanos(timings.queue()) + nanos(timings.encode()) + nanos(timings.search()));
}

TEST_F(ServerTest, AnswersDoNotDependOnTheirNeighbours) {
  Start({.threads = 4});
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 8; ++caller) {
    callers.emplace_back([this, caller] {
      for (int round = 0; round < 20; ++round) {
        const int dim = std::vector<int>{8, 24, 64}[static_cast<size_t>(caller + round) % 3];
        const std::vector<int32_t> history = {caller + 1, round + 1, 100 + caller};
        v1::RecommendRequest request = RequestFor(history);
        request.set_dim(dim);
        ExpectItems(MustRecommend(request),
                    BruteForce(history, dim, 10, {history.begin(), history.end()}));
      }
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
}

}  // namespace
}  // namespace nestrec
