// Encode over gRPC, in a server of this process: the vector is what Recommend ranks by.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "index/score.h"
#include "server/client.h"
#include "server/server.h"
#include "server/session/session_options.h"
#include "server/status_details.h"
#include "tests/server/model_server.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int32_t kItems = 300;
constexpr int kMaxLen = 10;

class EncodeTest : public ModelServerTest {
 protected:
  static void SetUpTestSuite() {
    LoadModel({.sizes = {8, 24, 64}, .blocks = 2, .items = kItems, .max_len = kMaxLen},
              {.tiers = {.tiers = {{.name = "gold", .dim = 64, .index = {}, .min_dim = 8},
                                   {.name = "graph", .dim = 24, .index = {"HNSW16"}, .max_k = 3}},
                         .default_tier = "gold"},
               .threads = 2,
               .sessions = true});
  }

  void Start(ServerOptions options, bool with_sessions = true) {
    if (with_sessions) {
      auto sessions = OpenSessions({.store = folder_.File("sessions"), .events = 20},
                                   Log([](absl::string_view) {}));
      ASSERT_TRUE(sessions.ok()) << sessions.status();
      options.sessions = *std::move(sessions);
    }
    StartServer(std::move(options));
  }
  void SetUp() override { Start({.threads = 2}); }

  static v1::EncodeRequest RequestFor(const std::vector<int32_t>& history, int dim = 0) {
    v1::EncodeRequest request;
    for (const int32_t item : history) request.add_history_item_ids(RandomModelItemId(item));
    if (dim != 0) request.set_dim(dim);
    return request;
  }
  v1::EncodeResponse MustEncode(const v1::EncodeRequest& request) {
    auto response = client_->Encode(request);
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? *std::move(response) : v1::EncodeResponse();
  }
  static std::vector<float> VectorOf(const v1::EncodeResponse& response) {
    return {response.vector().begin(), response.vector().end()};
  }
  // What the model makes of the history.
  static std::vector<float> Encoded(const std::vector<int32_t>& history, int dim) {
    std::vector<float> z(static_cast<size_t>(dim));
    const History span(history);
    EXPECT_TRUE(snapshot().encoder().Encode({&span, 1}, *snapshot().sizes().LevelsOf(dim), z).ok());
    return z;
  }
  // Sessions go on from a state, which rounds a little differently.
  static auto NearTo(const std::vector<float>& vector) {
    return ::testing::Pointwise(::testing::FloatNear(1e-5f), vector);
  }
  void Record(const std::string& user, const std::vector<std::string>& ids) {
    v1::RecordEventsRequest request;
    request.set_user_id(user);
    request.mutable_item_ids()->Assign(ids.begin(), ids.end());
    const auto response = client_->RecordEvents(request);
    ASSERT_TRUE(response.ok()) << response.status();
  }
  std::vector<std::string> Violations(const v1::EncodeRequest& request) {
    const absl::Status status = client_->Encode(request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    std::vector<std::string> violations;
    for (const FieldViolation& violation : FieldViolationsOf(status)) {
      violations.push_back(absl::StrCat(violation.field, ": ", violation.description));
    }
    return violations;
  }

  const TempFolder folder_;
};

TEST_F(EncodeTest, TheVectorsProductWithAnItemIsTheScoreThatRecommendGivesIt) {
  const ModelView& view = snapshot().checkpoint().view();
  const LevelVectors items{.sizes = view.sizes, .rows = view.item_rows, .levels = view.items};
  const std::vector<std::vector<int32_t>> histories = {
      {}, {7}, {1, 2, 3}, {9, 9, 250, 4, 4, 17, 80, 81, 82, 83, 84, 85, 300}};
  for (const std::vector<int32_t>& history : histories) {
    for (const int dim : {8, 24, 64}) {
      const v1::EncodeResponse encoded = MustEncode(RequestFor(history, dim));
      const std::vector<float> z = VectorOf(encoded);
      ASSERT_EQ(z, Encoded(history, dim));
      v1::RecommendRequest request;
      for (const int32_t item : history) request.add_history_item_ids(RandomModelItemId(item));
      request.set_dim(dim);
      request.set_k(kItems);
      request.set_include_seen(true);
      const auto recommended = client_->Recommend(request);
      ASSERT_TRUE(recommended.ok()) << recommended.status();
      ASSERT_EQ(recommended->items_size(), kItems);
      std::map<std::string, float> scores;
      for (const v1::RecommendedItem& item : recommended->items()) {
        scores[item.item_id()] = item.score();
      }
      const int levels = *view.sizes.LevelsOf(dim);
      for (int32_t item = 1; item <= kItems; ++item) {
        EXPECT_EQ(CanonicalScore(z, items, levels, item), scores.at(RandomModelItemId(item)));
      }
      EXPECT_EQ(encoded.served().model_version(), recommended->served().model_version());
    }
  }
}

TEST_F(EncodeTest, SaysHowItWasServed) {
  const v1::EncodeResponse by_default = MustEncode(RequestFor({5}));
  EXPECT_EQ(by_default.vector_size(), 64);
  EXPECT_EQ(by_default.served().dim(), 64);
  EXPECT_EQ(by_default.served().tier(), "gold");
  EXPECT_EQ(by_default.served().why(), v1::WIDTH_REASON_DEFAULT);
  EXPECT_FALSE(by_default.served().exact());
  EXPECT_EQ(by_default.served().model_version(), snapshot().version());
  EXPECT_FALSE(by_default.served().model_version().empty());
  EXPECT_TRUE(by_default.served().timings().has_total());
  EXPECT_EQ(by_default.served().timings().search().nanos(), 0);
  EXPECT_THAT(by_default.seen_item_ids(), IsEmpty());

  v1::EncodeRequest request = RequestFor({5});
  request.set_tier("graph");  // its max_k is about items
  EXPECT_EQ(VectorOf(MustEncode(request)), Encoded({5}, 24));
  EXPECT_EQ(MustEncode(request).served().why(), v1::WIDTH_REASON_TIER);

  request = RequestFor({5});
  request.set_min_quality(0.3);
  EXPECT_EQ(VectorOf(MustEncode(request)), Encoded({5}, 24));
  EXPECT_EQ(MustEncode(request).served().why(), v1::WIDTH_REASON_QUALITY);
}

TEST_F(EncodeTest, ABudgetThatNoWidthKeepsGetsTheNarrowestOrNone) {
  v1::EncodeRequest request = RequestFor({5, 6, 7});
  request.mutable_latency_budget()->set_seconds(3600);
  EXPECT_EQ(MustEncode(request).served().dim(), 64);
  // Either it began in time, as narrow as the tier allows, or it was turned away.
  request.mutable_latency_budget()->set_seconds(0);
  request.mutable_latency_budget()->set_nanos(1);
  const auto response = client_->Encode(request);
  if (response.ok()) {
    EXPECT_EQ(response->served().why(), v1::WIDTH_REASON_BUDGET);
    EXPECT_EQ(VectorOf(*response), Encoded({5, 6, 7}, 8));
  } else {
    EXPECT_THAT(response.status().code(), ::testing::AnyOf(absl::StatusCode::kDeadlineExceeded,
                                                           absl::StatusCode::kResourceExhausted))
        << response.status();
  }
}

TEST_F(EncodeTest, ASessionGivesTheVectorOfItsHistory) {
  Record("ann", {RandomModelItemId(4), "not an item", RandomModelItemId(9), RandomModelItemId(4)});
  v1::EncodeRequest request = RequestFor({30, 9}, 24);
  request.set_user_id("ann");
  const v1::EncodeResponse without = MustEncode(request);
  EXPECT_THAT(VectorOf(without), NearTo(Encoded({4, 9, 4, 30, 9}, 24)));
  EXPECT_EQ(without.served().session_event_count(), 4);
  EXPECT_THAT(without.seen_item_ids(), IsEmpty());
  request.set_return_seen(true);
  EXPECT_THAT(MustEncode(request).seen_item_ids(),
              ElementsAre(RandomModelItemId(4), RandomModelItemId(9), RandomModelItemId(30)));
  request = RequestFor({}, 24);
  request.set_user_id("nobody");
  request.set_return_seen(true);
  EXPECT_THAT(VectorOf(MustEncode(request)), NearTo(Encoded({}, 24)));
  EXPECT_THAT(MustEncode(request).seen_item_ids(), IsEmpty());
}

TEST_F(EncodeTest, AServerWithoutSessionsSaysSo) {
  Start({.threads = 1}, /*with_sessions=*/false);
  v1::EncodeRequest request = RequestFor({1});
  request.set_return_seen(true);
  EXPECT_THAT(MustEncode(request).seen_item_ids(), ElementsAre(RandomModelItemId(1)));
  request.set_user_id("ann");
  const absl::Status status = client_->Encode(request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(status.message(), HasSubstr("this server keeps no sessions"));
}

TEST_F(EncodeTest, UnknownItemsAreReportedAndHaveNoInfluence) {
  v1::EncodeRequest request = RequestFor({5}, 64);
  request.add_history_item_ids("none such");
  request.add_history_item_ids("none such");
  request.set_return_seen(true);
  const v1::EncodeResponse response = MustEncode(request);
  EXPECT_EQ(VectorOf(response), Encoded({5}, 64));
  EXPECT_THAT(response.unknown_item_ids(), ElementsAre("none such"));
  EXPECT_EQ(response.unknown_item_count(), 1u);
  EXPECT_THAT(response.seen_item_ids(), ElementsAre(RandomModelItemId(5)));
}

TEST_F(EncodeTest, NamesWhatIsWrong) {
  v1::EncodeRequest request;
  request.add_history_item_ids("");
  request.set_user_id(std::string(257, 'u'));
  request.set_min_quality(1.5);
  request.mutable_latency_budget()->set_seconds(-1);
  request.set_tier(std::string(65, 't'));
  EXPECT_THAT(
      Violations(request),
      ElementsAre("history_item_ids[0]: is empty",
                  "user_id: has 257 bytes; at most 256 are allowed",
                  "min_quality: 1.5 is not in 0 to 1", "tier: has 65 bytes; at most 64 are allowed",
                  "latency_budget: -1 s and 0 ns; a valid duration above 0 is needed"));
  EXPECT_THAT(Violations(RequestFor({1}, 9)),
              ElementsAre(HasSubstr("dim: 9 is not one of the sizes served here")));
  request = RequestFor({1});
  request.set_tier("platinum");
  EXPECT_THAT(Violations(request), ElementsAre(HasSubstr("tier: ")));
  request = RequestFor({});
  for (int i = 0; i < 10'001; ++i) request.add_history_item_ids("x");
  EXPECT_THAT(Violations(request),
              ElementsAre("history_item_ids: 10001 entries; at most 10000 are allowed; send the "
                          "newest"));
}

TEST_F(EncodeTest, RunsInBatchesWithRequestsForItems) {
  Start({.threads = 1, .batch_delay = absl::Milliseconds(1)}, /*with_sessions=*/false);
  v1::RecommendRequest recommend;
  recommend.add_history_item_ids(RandomModelItemId(3));
  recommend.set_dim(64);
  const auto expected = client_->Recommend(recommend);
  ASSERT_TRUE(expected.ok());
  v1::SimilarItemsRequest similar;
  similar.set_item_id(RandomModelItemId(3));
  const auto alike = client_->SimilarItems(similar);
  ASSERT_TRUE(alike.ok());
  std::vector<std::jthread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 30; ++i) {
        if (t % 3 == 0) {
          const int dim = i % 2 == 0 ? 8 : 64;
          EXPECT_EQ(VectorOf(MustEncode(RequestFor({3, t + 1}, dim))), Encoded({3, t + 1}, dim));
        } else if (t % 3 == 1) {
          const auto response = client_->Recommend(recommend);
          ASSERT_TRUE(response.ok()) << response.status();
          EXPECT_EQ(response->items(0).score(), expected->items(0).score());
        } else {
          const auto response = client_->SimilarItems(similar);
          ASSERT_TRUE(response.ok()) << response.status();
          EXPECT_EQ(response->items(0).item_id(), alike->items(0).item_id());
        }
      }
    });
  }
}

// A server that makes vectors alone.
class EncodeOnlyTest : public EncodeTest {
 protected:
  static void SetUpTestSuite() {
    LoadModel({.sizes = {8, 24, 64}, .blocks = 2, .items = kItems, .max_len = kMaxLen},
              {.tiers = {.tiers = {{.name = "gold", .dim = 64, .index = {}, .min_dim = 8}},
                         .default_tier = "gold"},
               .threads = 2,
               .encode_only = true,
               .sessions = true});
  }
};

TEST_F(EncodeOnlyTest, MakesTheSameVectors) {
  for (const int dim : {8, 24, 64}) {
    EXPECT_EQ(VectorOf(MustEncode(RequestFor({1, 2, 250}, dim))), Encoded({1, 2, 250}, dim));
  }
  Record("ann", {RandomModelItemId(4), RandomModelItemId(9)});
  v1::EncodeRequest request = RequestFor({5});
  request.set_user_id("ann");
  EXPECT_THAT(VectorOf(MustEncode(request)), NearTo(Encoded({4, 9, 5}, 64)));
}

TEST_F(EncodeOnlyTest, KeepsBudgetsAsOthersDo) {
  // Warm-up has taught it what widths cost; nothing fits into a nanosecond.
  v1::EncodeRequest request = RequestFor({5, 6, 7});
  request.mutable_latency_budget()->set_nanos(1);
  for (int i = 0; i < 20; ++i) {
    const auto response = client_->Encode(request);
    if (response.ok()) {
      EXPECT_EQ(response->served().dim(), 8);
    }
  }
  request.mutable_latency_budget()->set_seconds(3600);
  EXPECT_EQ(MustEncode(request).served().dim(), 64);
}

TEST_F(EncodeOnlyTest, RefusesWhatItWouldHaveToSearchFor) {
  v1::RecommendRequest recommend;
  recommend.add_history_item_ids(RandomModelItemId(1));
  v1::SimilarItemsRequest similar;
  similar.set_item_id(RandomModelItemId(1));
  for (const absl::Status& status :
       {client_->Recommend(recommend).status(), client_->SimilarItems(similar).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_THAT(status.message(), HasSubstr("--encode-only"));
  }
  v1::BatchRecommendRequest batch;
  *batch.add_requests() = recommend;
  const auto results = client_->BatchRecommend(batch);
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_EQ(results->results(0).error().code(),
            static_cast<int>(absl::StatusCode::kFailedPrecondition));
}

TEST_F(EncodeOnlyTest, TellsOfNoIndex) {
  const auto info = client_->GetModelInfo();
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->item_count(), kItems);
  for (const v1::TierInfo& tier : info->tiers()) {
    EXPECT_THAT(tier.index(), IsEmpty());
    EXPECT_FALSE(tier.exact());
  }
  for (const v1::SizeInfo& size : info->sizes()) {
    EXPECT_EQ(size.index_bytes(), 0);
    EXPECT_TRUE(size.costs().has_encode_p50());
  }
}

}  // namespace
}  // namespace nestrec
