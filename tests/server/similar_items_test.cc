// SimilarItems over gRPC, in a server of this process, against the definition.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "server/client.h"
#include "server/server.h"
#include "server/status_details.h"
#include "tests/server/model_server.h"
#include "tests/testing/random_model.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kItems = 700;

class SimilarItemsTest : public ModelServerTest {
 protected:
  static void SetUpTestSuite() {
    LoadModel({.sizes = {8, 24, 64}, .items = kItems},
              {.tiers = {.tiers = {{.name = "gold", .dim = 64, .index = {}, .min_dim = 8},
                                   {.name = "graph", .dim = 24, .index = {"HNSW16"}, .max_k = 20}},
                         .default_tier = "gold"},
               .threads = 2});
  }
  void SetUp() override { StartServer({.threads = 2}); }

  struct Neighbour {
    int32_t item;
    double cosine;
  };
  // All others, most alike first, by the definition.
  static std::vector<Neighbour> BruteForce(int32_t item, int dim) {
    const ModelView& view = snapshot().checkpoint().view();
    const auto column = [&](int64_t row, int c) {
      int level = 0;
      while (view.sizes.end(level) <= c) ++level;
      const int width = view.sizes.width(level);
      return static_cast<double>(view.items[static_cast<size_t>(level)][static_cast<size_t>(
          row * width + c - view.sizes.begin(level))]);
    };
    std::vector<Neighbour> all;
    for (int32_t other = 1; other <= kItems; ++other) {
      double product = 0, a = 0, b = 0;
      for (int c = 0; c < dim; ++c) {
        product += column(item, c) * column(other, c);
        a += column(item, c) * column(item, c);
        b += column(other, c) * column(other, c);
      }
      if (other != item) all.push_back({other, product / std::sqrt(a * b)});
    }
    std::sort(all.begin(), all.end(),
              [](const Neighbour& x, const Neighbour& y) { return x.cosine > y.cosine; });
    return all;
  }

  static v1::SimilarItemsRequest RequestFor(int32_t item, int dim = 0) {
    v1::SimilarItemsRequest request;
    request.set_item_id(RandomModelItemId(item));
    if (dim != 0) request.set_dim(dim);
    return request;
  }
  v1::SimilarItemsResponse MustFind(const v1::SimilarItemsRequest& request) {
    auto response = client_->SimilarItems(request);
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? *std::move(response) : v1::SimilarItemsResponse();
  }
  static void ExpectItems(const v1::SimilarItemsResponse& response,
                          const std::vector<Neighbour>& expected, size_t k) {
    ASSERT_EQ(static_cast<size_t>(response.items_size()), std::min(k, expected.size()));
    for (int i = 0; i < response.items_size(); ++i) {
      const Neighbour& neighbour = expected[static_cast<size_t>(i)];
      EXPECT_EQ(response.items(i).item_id(), RandomModelItemId(neighbour.item)) << i;
      EXPECT_NEAR(response.items(i).score(), neighbour.cosine, 1e-6) << i;
    }
  }
  std::vector<std::string> Violations(const v1::SimilarItemsRequest& request) {
    const absl::Status status = client_->SimilarItems(request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    std::vector<std::string> violations;
    for (const FieldViolation& violation : FieldViolationsOf(status)) {
      violations.push_back(absl::StrCat(violation.field, ": ", violation.description));
    }
    return violations;
  }
};

TEST_F(SimilarItemsTest, RanksAllOthersByCosineAtEveryDim) {
  for (const int32_t item : {1, 2, 350, 700}) {
    for (const int dim : {8, 24, 64}) {
      v1::SimilarItemsRequest request = RequestFor(item, dim);
      request.set_k(25);
      const v1::SimilarItemsResponse response = MustFind(request);
      ExpectItems(response, BruteForce(item, dim), 25);
      EXPECT_EQ(response.served().dim(), dim);
      EXPECT_EQ(response.served().why(), v1::WIDTH_REASON_EXPLICIT);
      EXPECT_TRUE(response.served().exact());
    }
  }
}

TEST_F(SimilarItemsTest, NeverReturnsTheItemItself) {
  v1::SimilarItemsRequest request = RequestFor(7);
  request.set_k(1000);
  const v1::SimilarItemsResponse response = MustFind(request);
  ExpectItems(response, BruteForce(7, 64), kItems);
  request.add_only_item_ids(RandomModelItemId(7));
  EXPECT_EQ(MustFind(request).items_size(), 0);
}

TEST_F(SimilarItemsTest, TiersServeAtTheirWidthAndExactlyWhateverTheirIndex) {
  v1::SimilarItemsRequest request = RequestFor(9);
  request.set_tier("graph");
  const v1::SimilarItemsResponse response = MustFind(request);
  ExpectItems(response, BruteForce(9, 24), 10);
  EXPECT_TRUE(response.served().exact());
  EXPECT_EQ(response.served().tier(), "graph");
  request.set_k(21);
  EXPECT_THAT(Violations(request), ElementsAre("k: 21 is more than tier graph gives, 20"));
  request = RequestFor(9);
  request.mutable_latency_budget()->set_seconds(3600);
  EXPECT_EQ(MustFind(request).served().dim(), 64);
}

TEST_F(SimilarItemsTest, FiltersExcludesAndCapsWorkAsInRecommend) {
  std::vector<Neighbour> allowed = BruteForce(11, 24);
  std::erase_if(allowed,
                [](const Neighbour& n) { return n.item % 5 != 3 || n.item == 13 || n.item > 400; });
  v1::SimilarItemsRequest request = RequestFor(11, 24);
  v1::ItemFilterList& every = *request.mutable_filter()->mutable_every();
  v1::FieldValues& brand = *every.add_filters()->mutable_any_of();
  brand.set_field("brand");
  brand.add_values()->set_text("Brand 3");
  v1::FieldRange& price = *every.add_filters()->mutable_range();
  price.set_field("price");
  price.set_max(400.5);
  request.add_exclude_item_ids(RandomModelItemId(13));
  request.add_exclude_item_ids("no such item");
  const v1::SimilarItemsResponse filtered = MustFind(request);
  ExpectItems(filtered, allowed, 10);
  EXPECT_EQ(filtered.unknown_exclude_item_count(), 1u);
  request.set_min_score(static_cast<float>(allowed[3].cosine) - 1e-6f);
  ExpectItems(MustFind(request), allowed, 4);

  request = RequestFor(11);
  request.set_k(20);
  v1::GroupCap& cap = *request.add_caps();
  cap.set_field("brand");
  cap.set_most(3);
  std::map<int32_t, int> of_brand;
  std::vector<Neighbour> capped;
  for (const Neighbour& neighbour : BruteForce(11, 64)) {
    if (++of_brand[neighbour.item % 5] <= 3) capped.push_back(neighbour);
  }
  ASSERT_EQ(capped.size(), 15u);
  ExpectItems(MustFind(request), capped, 20);
}

TEST_F(SimilarItemsTest, DiverseItemsAreAmongTheCandidates) {
  v1::SimilarItemsRequest request = RequestFor(5);
  request.mutable_diversity()->set_relevance(1);
  ExpectItems(MustFind(request), BruteForce(5, 64), 10);
  request.mutable_diversity()->set_relevance(0);
  request.mutable_diversity()->set_candidates(30);
  std::set<std::string> candidates;
  const std::vector<Neighbour> all = BruteForce(5, 64);
  for (size_t i = 0; i < 30; ++i) candidates.insert(RandomModelItemId(all[i].item));
  const v1::SimilarItemsResponse diverse = MustFind(request);
  ASSERT_EQ(diverse.items_size(), 10);
  for (const v1::RecommendedItem& item : diverse.items()) {
    EXPECT_EQ(candidates.erase(item.item_id()), 1u) << item.item_id();
  }
}

TEST_F(SimilarItemsTest, ReturnsFields) {
  v1::SimilarItemsRequest request = RequestFor(1);
  request.add_fields("brand");
  const v1::SimilarItemsResponse response = MustFind(request);
  ASSERT_GT(response.items_size(), 0);
  EXPECT_THAT(response.items(0).fields().at("brand"), HasSubstr("Brand "));
  EXPECT_FALSE(response.items(0).fields().contains("title"));
}

TEST_F(SimilarItemsTest, NamesWhatIsWrong) {
  v1::SimilarItemsRequest request;
  EXPECT_THAT(Violations(request), ElementsAre("item_id: is empty"));
  request.set_item_id(std::string(257, 'x'));
  request.set_k(0);
  request.mutable_filter()->set_exists("colour");
  EXPECT_THAT(
      Violations(request),
      ElementsAre("item_id: has 257 bytes; at most 256 are allowed", "k: 0 is not in 1 to 1000",
                  HasSubstr("filter.exists: no item has a field \"colour\"")));
  EXPECT_THAT(Violations(RequestFor(1, 9)),
              ElementsAre(HasSubstr("dim: 9 is not one of the sizes served here")));
  request = {};
  request.set_item_id("no such\nitem");
  const absl::Status status = client_->SimilarItems(request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("there is no item \"no such"));
}

TEST_F(SimilarItemsTest, RunsInBatchesWithRecommendations) {
  v1::SimilarItemsRequest similar = RequestFor(3, 24);
  v1::RecommendRequest recommend;
  recommend.add_history_item_ids(RandomModelItemId(3));
  recommend.set_dim(64);
  const auto expected = client_->Recommend(recommend);
  ASSERT_TRUE(expected.ok());
  std::vector<std::jthread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 30; ++i) {
        if (t % 2 == 0) {
          ExpectItems(MustFind(similar), BruteForce(3, 24), 10);
          continue;
        }
        const auto response = client_->Recommend(recommend);
        ASSERT_TRUE(response.ok()) << response.status();
        ASSERT_EQ(response->items_size(), expected->items_size());
        EXPECT_EQ(response->items(0).score(), expected->items(0).score());
      }
    });
  }
}

}  // namespace
}  // namespace nestrec
