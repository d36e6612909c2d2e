// explain in Recommend over gRPC, in a server of this process, against its definition.
#include "server/explain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "absl/strings/str_cat.h"
#include "index/score.h"
#include "server/client.h"
#include "server/server.h"
#include "server/session/session_options.h"
#include "server/status_details.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kItems = 300;
constexpr int kMaxLen = 10;

class ExplainTest : public ::testing::TestWithParam<Mixer> {
 protected:
  void SetUp() override {
    const std::string path = folder_.File("model.safetensors");
    ASSERT_TRUE(RandomModel({.sizes = {8, 24, 64},
                             .blocks = 2,
                             .items = kItems,
                             .architecture = {.mixer = GetParam()},
                             .max_len = kMaxLen})
                    .Write(path)
                    .ok());
    const Log quiet([](absl::string_view) {});
    auto loaded = Snapshot::Load({.path = path, .threads = 2, .sessions = true}, quiet);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    snapshot_ = *std::move(loaded);
    ServerOptions options{.listen = "127.0.0.1:0", .threads = 2};
    auto sessions = OpenSessions({.store = folder_.File("sessions"), .events = 20}, quiet);
    ASSERT_TRUE(sessions.ok()) << sessions.status();
    options.sessions = *std::move(sessions);
    auto server = Server::Start(options, snapshot_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<RecommendClient>(
        RecommendClient::Options{.server = server_->address(), .timeout = absl::Seconds(60)});
  }

  double ScoreOf(const std::vector<int32_t>& history, int dim, int32_t item) {
    const int levels = *snapshot_->sizes().LevelsOf(dim);
    std::vector<float> z(static_cast<size_t>(dim));
    const History span(history);
    EXPECT_TRUE(snapshot_->encoder().Encode(std::span(&span, 1), levels, z).ok());
    return CanonicalScore(z, snapshot_->item_vectors(), levels, item);
  }
  static int32_t NumberOf(const std::string& id) {
    for (int32_t item = 1; item <= kItems; ++item) {
      if (RandomModelItemId(item) == id) return item;
    }
    return 0;
  }
  // Everything in the answer about `window` is what the definition says.
  void ExpectExplained(const v1::RecommendResponse& response, const std::vector<int32_t>& window,
                       int dim) {
    std::vector<std::string> ids;
    for (const int32_t item : window) ids.push_back(RandomModelItemId(item));
    EXPECT_THAT(response.explained_item_ids(), testing::ElementsAreArray(ids));
    ASSERT_GT(response.items_size(), 0);
    for (const v1::RecommendedItem& item : response.items()) {
      const int32_t number = NumberOf(item.item_id());
      ASSERT_EQ(static_cast<size_t>(item.contributions_size()), window.size());
      const double whole = ScoreOf(window, dim, number);
      EXPECT_NEAR(item.score(), whole, 1e-3);
      for (size_t place = 0; place < window.size(); ++place) {
        std::vector<int32_t> without = window;
        without.erase(without.begin() + static_cast<std::ptrdiff_t>(place));
        EXPECT_NEAR(item.contributions(static_cast<int>(place)),
                    whole - ScoreOf(without, dim, number), 1e-4)
            << place;
      }
    }
    EXPECT_TRUE(response.served().timings().has_explain());
  }
  v1::RecommendResponse Ask(v1::RecommendRequest request, int dim) {
    request.set_dim(dim);
    request.set_k(5);
    request.set_explain(true);
    auto response = client_->Recommend(request);
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? *std::move(response) : v1::RecommendResponse();
  }

  TempFolder folder_;
  std::shared_ptr<const Snapshot> snapshot_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<RecommendClient> client_;
};

INSTANTIATE_TEST_SUITE_P(Mixers, ExplainTest, ::testing::Values(Mixer::kLru, Mixer::kAttention));

TEST_P(ExplainTest, ContributionsAreLeaveOneOutAtEveryDim) {
  v1::RecommendRequest request;
  const std::vector<int32_t> history = {5, 9, 5, 200, 31};
  for (const int32_t item : history) request.add_history_item_ids(RandomModelItemId(item));
  request.add_history_item_ids("no such item");
  for (const int dim : {8, 24, 64}) ExpectExplained(Ask(request, dim), history, dim);
}

TEST_P(ExplainTest, OnlyWhatTheModelReadsIsExplained) {
  v1::RecommendRequest request;
  std::vector<int32_t> window;
  for (int32_t item = 1; item <= kMaxLen + 7; ++item) {
    request.add_history_item_ids(RandomModelItemId(item));
    if (item > 7) window.push_back(item);
  }
  ExpectExplained(Ask(request, 24), window, 24);
}

TEST_P(ExplainTest, AnEmptyHistoryHasNothingToExplain) {
  const v1::RecommendResponse response = Ask({}, 64);
  EXPECT_EQ(response.explained_item_ids_size(), 0);
  ASSERT_EQ(response.items_size(), 5);
  EXPECT_EQ(response.items(0).contributions_size(), 0);
}

TEST_P(ExplainTest, ASessionIsExplainedTogetherWithWhatFollowsIt) {
  v1::RecordEventsRequest events;
  events.set_user_id("u");
  for (int32_t item = 1; item <= 12; ++item) {
    events.add_item_ids(item == 9 ? "no such item" : RandomModelItemId(10 * item));
  }
  ASSERT_TRUE(client_->RecordEvents(events).ok());
  v1::RecommendRequest request;
  request.set_user_id("u");
  // Places 3 to 12, of which the ninth holds nothing that the model knows.
  ExpectExplained(Ask(request, 64), {30, 40, 50, 60, 70, 80, 100, 110, 120}, 64);
  request.add_history_item_ids(RandomModelItemId(7));
  request.add_history_item_ids(RandomModelItemId(8));
  ExpectExplained(Ask(request, 24), {50, 60, 70, 80, 100, 110, 120, 7, 8}, 24);
}

TEST_P(ExplainTest, WithoutItNothingIsExplained) {
  v1::RecommendRequest request;
  request.add_history_item_ids(RandomModelItemId(1));
  const auto response = client_->Recommend(request);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->explained_item_ids_size(), 0);
  EXPECT_EQ(response->items(0).contributions_size(), 0);
  EXPECT_FALSE(response->served().timings().has_explain());
}

TEST_P(ExplainTest, MoreItemsThanItAllowsAreRefused) {
  v1::RecommendRequest request;
  request.set_explain(true);
  request.set_k(100);
  EXPECT_TRUE(client_->Recommend(request).ok());
  request.set_k(101);
  const auto violations = FieldViolationsOf(client_->Recommend(request).status());
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0].field, "k");
  EXPECT_EQ(violations[0].description, "101 is more than explain allows, 100; ask for fewer items");
  v1::BatchRecommendRequest batch;
  for (int i = 0; i < 11; ++i) batch.add_requests()->set_explain(true);
  const auto of_batch = FieldViolationsOf(client_->BatchRecommend(batch).status());
  ASSERT_EQ(of_batch.size(), 1u);
  EXPECT_EQ(of_batch[0].description,
            "11 of them with explain; at most 10 are allowed; send them in parts");
}

TEST_P(ExplainTest, EndsAsSoonAsNobodyWaits) {
  std::vector<int32_t> window;
  for (int32_t item = 1; item <= kMaxLen; ++item) window.push_back(item);
  const std::vector<ScoredItem> found = {{.item = 3, .score = 0}};
  const auto view = snapshot_->items();
  const ExplainedItems items{.known = view.get(), .searched = view.get(), .found = found};
  int asked = 0;
  const auto stopped = Explain(*snapshot_, window, 1, items, [&]() -> absl::Status {
    ++asked;
    return absl::CancelledError("gone");
  });
  EXPECT_EQ(stopped.status(), absl::CancelledError("gone"));
  EXPECT_EQ(asked, 1);
}

}  // namespace
}  // namespace nestrec
