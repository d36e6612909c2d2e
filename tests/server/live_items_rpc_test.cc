// Items that are upserted and removed over gRPC, in a server of this process, against brute force
// over what there should be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "index/cosine_index.h"
#include "index/score.h"
#include "model/item_projection.h"
#include "server/client.h"
#include "server/server.h"
#include "server/session/session_options.h"
#include "server/status_details.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

constexpr int32_t kItems = 300;
constexpr int kFeatures = 12;
const std::vector<int> kDims = {8, 24, 64};

class LiveItemsRpcTest : public ::testing::Test {
 protected:
  std::shared_ptr<const Snapshot> Load(const RandomModelOptions& options, const std::string& name) {
    const std::string path = folder_.File(name);
    EXPECT_TRUE(RandomModel(options).Write(path).ok());
    auto loaded = Snapshot::Load(
        {.path = path,
         .tiers = {.tiers = {{.name = "gold", .dim = 64, .index = {}},
                             {.name = "nest", .dim = 64, .index = {.factory = "nested"}},
                             {.name = "graph", .dim = 24, .index = {.factory = "HNSW16"}}},
                   .default_tier = "gold"},
         .threads = 2,
         .sessions = true},
        Log([](absl::string_view) {}));
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? *std::move(loaded) : nullptr;
  }
  void SetUp() override {
    snapshot_ = Load({.sizes = kDims, .items = kItems, .feature_width = kFeatures}, "model");
    Start();
  }
  // With what the folders hold.
  void Start(LiveItems::Options live = {}) {
    server_.reset();
    live_.reset();
    options_ = {};
    // Numbers of the snapshot are those of its live items: a new server begins with a new one.
    snapshot_ = Load({.sizes = kDims, .items = kItems, .feature_width = kFeatures}, "model");
    live.folder = folder_.File("items");
    auto opened = LiveItems::Open(live, Log([](absl::string_view) {}));
    ASSERT_TRUE(opened.ok()) << opened.status();
    live_ = *std::move(opened);
    ServerOptions options{.listen = "127.0.0.1:0", .threads = 2};
    auto sessions =
        OpenSessions({.store = folder_.File("sessions")}, Log([](absl::string_view) {}));
    ASSERT_TRUE(sessions.ok()) << sessions.status();
    options.sessions = *std::move(sessions);
    options.live_items = live_;
    auto server = Server::Start(options, snapshot_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<RecommendClient>(
        RecommendClient::Options{.server = server_->address(), .timeout = absl::Seconds(60)});
  }

  static std::vector<float> Features(uint64_t seed, float scale = 1) {
    Random random(seed);
    std::vector<float> features;
    for (int i = 0; i < kFeatures; ++i) {
      features.push_back(scale * static_cast<float>(random.Normal()));
    }
    return features;
  }
  static void Add(v1::UpsertItemsRequest& request, const std::string& id,
                  const std::vector<float>& features, const std::string& record = "") {
    v1::ItemUpsert& item = *request.add_items();
    item.set_item_id(id);
    if (!record.empty()) item.set_record(record);
    if (features.empty()) return;
    v1::ItemFeatures& text = *item.add_features();
    text.set_modality("text");
    text.mutable_values()->Assign(features.begin(), features.end());
  }
  // Upserts over the wire, and in what is expected.
  void Upsert(const std::string& id, const std::vector<float>& features,
              const std::string& record = "") {
    v1::UpsertItemsRequest request;
    Add(request, id, features, record);
    const auto response = client_->UpsertItems(request);
    ASSERT_TRUE(response.ok()) << response.status();
    gone_.erase(id);
    if (features.empty()) return;
    const std::vector<ModalityRow> rows = {{"text", features}};
    vectors_[id] =
        ProjectItem(snapshot_->checkpoint().view(), snapshot_->checkpoint().info(), rows);
  }
  v1::RemoveItemsResponse Remove(const std::vector<std::string>& ids, bool restore = false) {
    v1::RemoveItemsRequest request;
    for (const std::string& id : ids) request.add_item_ids(id);
    request.set_restore(restore);
    const auto response = client_->RemoveItems(request);
    EXPECT_TRUE(response.ok()) << response.status();
    for (const std::string& id : ids) {
      vectors_.erase(id);
      if (restore) {
        gone_.erase(id);
      } else {
        gone_.insert(id);
      }
    }
    return response.value_or(v1::RemoveItemsResponse());
  }

  std::vector<float> VectorOf(const std::string& id) const {
    const auto upserted = vectors_.find(id);
    if (upserted != vectors_.end()) return upserted->second;
    std::vector<float> vector;
    const LevelVectors vectors = snapshot_->item_vectors();
    const int32_t item = *snapshot_->catalogue().Find(id);
    for (int level = 0; level < 3; ++level) {
      const auto part = vectors.row(level, item);
      vector.insert(vector.end(), part.begin(), part.end());
    }
    return vector;
  }
  // All ids that may come back.
  std::set<std::string> Ids() const {
    std::set<std::string> ids;
    for (int32_t item = 1; item <= kItems; ++item) {
      if (!gone_.contains(RandomModelItemId(item))) ids.insert(RandomModelItemId(item));
    }
    for (const auto& [id, vector] : vectors_) ids.insert(id);
    return ids;
  }
  // Every id's score for what the history says, by the definition of all parts.
  std::map<std::string, float> Scores(const std::vector<std::string>& history, int dim) const {
    class Rows : public ItemRows {
     public:
      const float* RowOf(int32_t item) const override {
        return rows[static_cast<size_t>(item)].data();
      }
      std::vector<std::vector<float>> rows = {std::vector<float>(64)};
    } rows;
    std::vector<int32_t> numbers;
    for (const std::string& id : history) {
      numbers.push_back(static_cast<int32_t>(rows.rows.size()));
      rows.rows.push_back(VectorOf(id));
    }
    const int levels = *snapshot_->sizes().LevelsOf(dim);
    std::vector<float> z(static_cast<size_t>(dim));
    const History span(numbers);
    EXPECT_TRUE(
        snapshot_->encoder().Encode({&span, 1}, levels, z, numbers.empty() ? nullptr : &rows).ok());
    std::map<std::string, float> scores;
    for (const std::string& id : Ids()) {
      scores[id] = CanonicalScore(z, VectorOf(id), snapshot_->sizes(), levels);
    }
    return scores;
  }
  v1::RecommendResponse Recommend(const v1::RecommendRequest& request) const {
    auto response = client_->Recommend(request);
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? *std::move(response) : v1::RecommendResponse();
  }
  // The answer is the best of `scores`, in order, but for scores that rounding may swap.
  static void ExpectBest(const v1::RecommendResponse& response, std::map<std::string, float> scores,
                         size_t k) {
    std::vector<float> best;
    for (const auto& [id, score] : scores) best.push_back(score);
    std::sort(best.begin(), best.end(), std::greater<>());
    best.resize(std::min(best.size(), k));
    ASSERT_EQ(static_cast<size_t>(response.items_size()), best.size());
    for (size_t i = 0; i < best.size(); ++i) {
      const v1::RecommendedItem& item = response.items(static_cast<int>(i));
      EXPECT_NEAR(item.score(), best[i], 1e-3) << i;
      ASSERT_TRUE(scores.contains(item.item_id())) << item.item_id();
      EXPECT_NEAR(item.score(), scores[item.item_id()], 1e-3) << item.item_id();
    }
  }
  // At every dim, and in every tier that is exact.
  void ExpectServed(const std::vector<std::string>& history, size_t k = 400) const {
    v1::RecommendRequest request;
    for (const std::string& id : history) request.add_history_item_ids(id);
    request.set_k(static_cast<uint32_t>(k));
    request.set_include_seen(true);
    for (const int dim : kDims) {
      request.set_dim(dim);
      ExpectBest(Recommend(request), Scores(history, dim), k);
    }
    for (const char* tier : {"gold", "nest"}) {
      request.set_tier(tier);
      ExpectBest(Recommend(request), Scores(history, 64), k);
    }
    request.set_tier("graph");
    const std::map<std::string, float> scores = Scores(history, 24);
    const v1::RecommendResponse approximate = Recommend(request);
    for (const v1::RecommendedItem& item : approximate.items()) {
      ASSERT_TRUE(scores.contains(item.item_id())) << item.item_id();
      EXPECT_NEAR(item.score(), scores.at(item.item_id()), 1e-3);
    }
  }
  template <typename Response>
  static std::vector<std::string> Violations(const absl::StatusOr<Response>& response) {
    EXPECT_EQ(response.status().code(), absl::StatusCode::kInvalidArgument) << response.status();
    std::vector<std::string> violations;
    for (const FieldViolation& violation : FieldViolationsOf(response.status())) {
      violations.push_back(absl::StrCat(violation.field, ": ", violation.description));
    }
    return violations;
  }

  TempFolder folder_;
  ServerOptions options_;
  std::shared_ptr<const Snapshot> snapshot_;
  std::shared_ptr<LiveItems> live_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<RecommendClient> client_;
  std::map<std::string, std::vector<float>> vectors_;  // of upserted features
  std::set<std::string> gone_;
};

TEST_F(LiveItemsRpcTest, NewItemsComeBackAtEveryWidthAndInEveryTier) {
  for (uint64_t i = 0; i < 40; ++i) Upsert(absl::StrCat("new-", i), Features(i, 3));
  ExpectServed({});
  ExpectServed({RandomModelItemId(7), RandomModelItemId(12)}, 25);
  const auto info = client_->GetModelInfo();
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->item_count(), kItems + 40);
  EXPECT_EQ(info->live_items().added(), 40);
  EXPECT_GT(info->live_items().bytes(), 40 * 64 * 4);
  // An approximate index does not keep the best one back.
  v1::RecommendRequest request;
  request.set_tier("graph");
  request.set_k(1);
  const std::vector<float> scale = Features(99, 1000);
  Upsert("huge", scale);
  if (Scores({}, 24).at("huge") < 0) {
    std::vector<float> opposite = scale;
    for (float& value : opposite) value = -value;
    Upsert("huge", opposite);
  }
  EXPECT_EQ(Recommend(request).items(0).item_id(), "huge");
}

TEST_F(LiveItemsRpcTest, AnItemOfTheModelGetsNewFeaturesAndKeepsItsVectorWithoutThem) {
  const std::string id = RandomModelItemId(7);
  Upsert(id, {}, R"({"title": "Renamed", "price": 1234.5})");
  ExpectServed({id}, 20);
  v1::RecommendRequest request;
  request.add_only_item_ids(id);
  request.add_fields("title");
  request.add_fields("brand");
  EXPECT_EQ(Recommend(request).items(0).fields().at("title"), "Renamed");
  EXPECT_FALSE(Recommend(request).items(0).fields().contains("brand"));
  Upsert(id, Features(5, 2));
  ExpectServed({id}, 20);
  EXPECT_EQ(Recommend(request).items(0).fields().at("title"), "Renamed");
  EXPECT_EQ(client_->GetModelInfo()->live_items().changed(), 1);
  Remove({id}, /*restore=*/true);
  ExpectServed({id}, 20);
  EXPECT_EQ(Recommend(request).items(0).fields().at("title"), "Title 7");
}

TEST_F(LiveItemsRpcTest, RemovedItemsDoNotComeBackButCountInHistories) {
  Upsert("new", Features(1, 3));
  const std::string trained = RandomModelItemId(11);
  const std::vector<std::string> history = {trained, RandomModelItemId(3)};
  const v1::RemoveItemsResponse response = Remove({trained, "new", "nobody", "nobody"});
  EXPECT_EQ(response.removed(), 2u);
  EXPECT_THAT(response.unknown_item_ids(), ElementsAre("nobody"));
  EXPECT_EQ(response.live_items().removed(), 1);
  EXPECT_EQ(response.live_items().added(), 0);
  ExpectServed(history);
  v1::SimilarItemsRequest similar;
  similar.set_item_id(trained);
  EXPECT_EQ(client_->SimilarItems(similar).status().code(), absl::StatusCode::kNotFound);
  v1::RecommendRequest request;
  request.add_history_item_ids("new");
  request.add_history_item_ids(trained);
  EXPECT_THAT(Recommend(request).unknown_item_ids(), ElementsAre("new"));
  EXPECT_EQ(Remove({trained}).removed(), 0u);  // once is enough
  // Upserted again, it is back as the model has it.
  Upsert(trained, {}, R"({"title": "Back"})");
  ExpectServed(history);
}

TEST_F(LiveItemsRpcTest, HistoriesMayNameNewItems) {
  Upsert("new-a", Features(1, 2));
  Upsert("new-b", Features(2, 2));
  ExpectServed({"new-a"}, 30);
  ExpectServed({RandomModelItemId(5), "new-b", "new-a", "new-b"}, 30);
  v1::RecommendRequest request;
  request.add_history_item_ids("new-a");
  request.add_history_item_ids(RandomModelItemId(9));
  request.set_explain(true);
  request.set_dim(24);
  request.set_k(5);
  const v1::RecommendResponse explained = Recommend(request);
  EXPECT_THAT(explained.explained_item_ids(), ElementsAre("new-a", RandomModelItemId(9)));
  const auto whole = Scores({"new-a", RandomModelItemId(9)}, 24);
  const auto without = Scores({RandomModelItemId(9)}, 24);
  for (const v1::RecommendedItem& item : explained.items()) {
    EXPECT_NEAR(item.contributions(0), whole.at(item.item_id()) - without.at(item.item_id()), 1e-3);
  }
}

TEST_F(LiveItemsRpcTest, SessionsFollowWhatHappensToTheirItems) {
  v1::RecordEventsRequest events;
  events.set_user_id("u");
  for (const char* id : {"item-4", "later", "item-9"}) events.add_item_ids(id);
  ASSERT_TRUE(client_->RecordEvents(events).ok());
  const auto expect = [&](const std::vector<std::string>& history) {
    for (const int dim : {64, 8, 24}) {
      v1::RecommendRequest request;
      request.set_user_id("u");
      request.set_dim(dim);
      request.set_include_seen(true);
      request.set_k(50);
      ExpectBest(Recommend(request), Scores(history, dim), 50);
      ExpectBest(Recommend(request), Scores(history, dim), 50);  // from what is remembered
    }
  };
  expect({"item-4", "item-9"});
  Upsert("later", Features(1, 2));
  expect({"item-4", "later", "item-9"});
  Upsert("unrelated", Features(2, 2));
  expect({"item-4", "later", "item-9"});
  Upsert("later", Features(3, 2));
  expect({"item-4", "later", "item-9"});
  Upsert("item-9", Features(4, 2));
  expect({"item-4", "later", "item-9"});
  Remove({"item-9"}, /*restore=*/true);
  expect({"item-4", "later", "item-9"});
  Remove({"later"});
  expect({"item-4", "item-9"});
}

TEST_F(LiveItemsRpcTest, FiltersCapsAndLikenessSeeThem) {
  Upsert("red-1", Features(1), R"({"title": "Red", "brand": "Brand 3", "colour": "red"})");
  Upsert("red-2", Features(2), R"({"brand": "New brand", "colour": "red", "price": "12.5"})");
  Upsert(RandomModelItemId(8), {}, R"({"brand": "New brand", "price": 3})");
  v1::RecommendRequest request;
  request.set_k(400);
  const auto found = [&] {
    std::vector<std::string> ids;
    const v1::RecommendResponse response = Recommend(request);
    for (const v1::RecommendedItem& item : response.items()) ids.push_back(item.item_id());
    return ids;
  };
  v1::FieldValues& values = *request.mutable_filter()->mutable_any_of();
  values.set_field("colour");
  values.add_values()->set_text("red");
  EXPECT_THAT(found(), UnorderedElementsAre("red-1", "red-2"));
  values.set_field("brand");
  values.mutable_values(0)->set_text("New brand");
  EXPECT_THAT(found(), UnorderedElementsAre("red-2", RandomModelItemId(8)));
  values.mutable_values(0)->set_text("Brand 3");
  EXPECT_EQ(found().size(), 60u);  // 60 of the model without item 8, which changed, and red-1
  v1::FieldRange& range = *request.mutable_filter()->mutable_range();
  range.set_field("price");
  range.set_min(12.5);
  range.set_max(12.5);
  EXPECT_THAT(found(), UnorderedElementsAre("red-2", RandomModelItemId(12)));
  request.clear_filter();
  v1::GroupCap& cap = *request.add_caps();
  cap.set_field("brand");
  cap.set_most(1);
  EXPECT_EQ(found().size(), 6u);  // of five brands and the new one
  request.clear_caps();
  request.mutable_diversity()->set_relevance(0.5);
  request.set_k(20);
  EXPECT_EQ(found().size(), 20u);

  v1::SimilarItemsRequest similar;
  similar.set_item_id("red-1");
  similar.set_k(400);
  similar.set_dim(24);
  const auto alike = client_->SimilarItems(similar);
  ASSERT_TRUE(alike.ok()) << alike.status();
  EXPECT_EQ(alike->items_size(), kItems + 1);
  std::map<std::string, float> cosines;
  const std::vector<float> vector = VectorOf("red-1");
  const NestedSizes& sizes = snapshot_->sizes();
  for (const std::string& id : Ids()) {
    if (id == "red-1") continue;
    const std::vector<float> other = VectorOf(id);
    double product = 0;
    for (size_t c = 0; c < 24; ++c) product += static_cast<double>(vector[c]) * other[c];
    cosines[id] = CosineFromSums(product, SquareOf(vector, sizes, 2), SquareOf(other, sizes, 2));
  }
  for (const v1::RecommendedItem& item : alike->items()) {
    EXPECT_NEAR(item.score(), cosines.at(item.item_id()), 1e-5);
  }
}

TEST_F(LiveItemsRpcTest, WhatWasAnsweredIsThereAfterARestart) {
  Upsert("new", Features(1, 2), R"({"title": "New"})");
  Upsert("gone", Features(2, 2));
  Upsert("item-20", Features(3, 2));
  Upsert("item-21", {}, R"({"title": "Other"})");
  Remove({"gone", "item-30"});
  Remove({"item-31"});
  Remove({"item-31"}, /*restore=*/true);
  Start();
  ExpectServed({"new", "item-20"});
  const v1::LiveItemCounts counts = client_->GetModelInfo()->live_items();
  EXPECT_EQ(counts.added(), 1);
  EXPECT_EQ(counts.changed(), 2);
  EXPECT_EQ(counts.removed(), 1);
  v1::RecommendRequest request;
  request.add_only_item_ids("item-21");
  EXPECT_EQ(Recommend(request).items(0).fields().at("title"), "Other");
}

TEST_F(LiveItemsRpcTest, TheFileDoesNotGrowWithWhatIsOutdated) {
  const std::string record = absl::StrCat(R"({"text": ")", std::string(60'000, 'x'), R"("})");
  for (int i = 0; i < 60; ++i) Upsert("item-1", {}, record);
  EXPECT_LT(ReadFile(folder_.File("items") + "/items.log")->size(), 1'400'000u);
  Start();
  EXPECT_EQ(client_->GetModelInfo()->live_items().changed(), 1);
}

TEST_F(LiveItemsRpcTest, ANewModelGetsThemInItsOwnWay) {
  Upsert("new", Features(1, 2));
  Upsert("item-5", Features(2, 2), R"({"title": "Five"})");
  Remove({"item-6"});
  // Other weights.
  const auto next =
      Load({.sizes = kDims, .items = kItems, .feature_width = kFeatures, .seed = 9}, "next");
  ASSERT_TRUE(live_->Attach(next).ok());
  const auto view = next->items();
  ASSERT_TRUE(view->Find("new").has_value());
  const std::vector<ModalityRow> rows = {{"text", Features(1, 2)}};
  const std::vector<float> expected =
      ProjectItem(next->checkpoint().view(), next->checkpoint().info(), rows);
  const float* row = view->RowOf(*view->Find("new"));
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), row));
  EXPECT_EQ(view->counts().removed, 1);
  // Features of another width: the new one is left out, the model's own stays as it has it.
  const auto wider =
      Load({.sizes = kDims, .items = kItems, .feature_width = kFeatures + 1}, "wider");
  ASSERT_TRUE(live_->Attach(wider).ok());
  EXPECT_EQ(wider->items()->counts().skipped, 2);
  EXPECT_FALSE(wider->items()->Find("new").has_value());
  EXPECT_EQ(wider->items()->RowOf(5), nullptr);
  EXPECT_EQ(wider->items()->record(5), R"({"title": "Five"})");
  EXPECT_FALSE(wider->items()->IsListed(6));
  // All of them follow.
  Upsert("item-6", {}, "{}");
  EXPECT_TRUE(next->items()->IsListed(6));
  EXPECT_TRUE(wider->items()->IsListed(6));
}

TEST_F(LiveItemsRpcTest, NumbersStayWithTheirItemsWhileAnybodyMayUseThem) {
  Upsert("a", Features(1));
  std::shared_ptr<const ItemView> held = snapshot_->items();
  const int32_t number = *held->Find("a");
  Remove({"a"});
  Upsert("b", Features(2));
  EXPECT_NE(*snapshot_->items()->Find("b"), number);
  EXPECT_EQ(held->id(number), "a");
  held.reset();
  Upsert("c", Features(3));  // by now nobody holds a view with the first
  Upsert("d", Features(4));
  EXPECT_EQ(std::min(*snapshot_->items()->Find("c"), *snapshot_->items()->Find("d")), number);
  EXPECT_EQ(snapshot_->items()->items(), kItems + 3);
}

TEST_F(LiveItemsRpcTest, NamesWhatIsWrongAndChangesNothing) {
  v1::UpsertItemsRequest request;
  EXPECT_THAT(Violations(client_->UpsertItems(request)),
              ElementsAre("items: 0 entries; 1 to 1000 are allowed"));
  Add(request, "good", Features(1));
  Add(request, "", Features(1));
  Add(request, "good", Features(2));
  Add(request, "empty", {});
  Add(request, "json", Features(1), R"({"title": )");
  Add(request, "list", Features(1), "[1, 2]");
  Add(request, "large", Features(1), absl::StrCat("\"", std::string(70'000, 'x'), "\""));
  EXPECT_THAT(
      Violations(client_->UpsertItems(request)),
      ElementsAre("items[1].item_id: is empty",
                  "items[2].item_id: comes twice; send each item once",
                  HasSubstr("items[3]: changes nothing; give a record"),
                  HasSubstr("items[4].record: is not a JSON object: it cannot be read at byte"),
                  HasSubstr("items[5].record: is not a JSON object"),
                  "items[6].record: has 70002 bytes; at most 65536 are allowed"));
  request.clear_items();
  Add(request, "good", Features(1));
  Add(request, "narrow", {1, 2, 3});
  Add(request, "zero", std::vector<float>(kFeatures, 0.0f));
  Add(request, "without", {}, "{}");
  Add(request, "infinite", Features(1));
  request.mutable_items(4)->mutable_features(0)->set_values(2, INFINITY);
  EXPECT_THAT(
      Violations(client_->UpsertItems(request)),
      ElementsAre("items[1]: modality \"text\" has 3 values; this model's has 12",
                  HasSubstr("items[2]: has no feature that is not zero"),
                  HasSubstr("items[3]: is not one of the model's items and has no features"),
                  HasSubstr("items[4]: value 2 of modality \"text\" is inf")));
  EXPECT_FALSE(snapshot_->items()->Find("good").has_value());
  request.clear_items();
  request.add_items()->set_item_id("text");
  request.mutable_items(0)->set_encode_text(true);
  const absl::Status no_encoder = client_->UpsertItems(request).status();
  EXPECT_EQ(no_encoder.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(no_encoder.message(), HasSubstr("encode_text needs the text encoder"));
  v1::RemoveItemsRequest remove;
  EXPECT_THAT(Violations(client_->RemoveItems(remove)),
              ElementsAre("item_ids: 0 entries; 1 to 1000 are allowed"));
}

TEST_F(LiveItemsRpcTest, ATextIsEncodedByTheModelsOwnEncoder) {
  const RandomModel model({.sizes = kDims, .items = kItems, .feature_width = kFeatures});
  std::vector<std::string> texts;
  const std::vector<std::string> fields = {"title", "brand"};
  for (int32_t item = 1; item <= kItems; ++item) {
    texts.push_back(ItemText(model.catalogue().record(item), fields));
  }
  auto fitted =
      TextEncoder::Fit(texts, {.fields = fields, .width = kFeatures, .min_items = 1, .seed = 3});
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  ASSERT_TRUE(fitted->encoder.Save(folder_.File("encoder")).ok());
  const auto file = SafetensorsFile::Open(folder_.File("encoder"), true);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(WriteCheckpoint(folder_.File("with_text"), model.view(), model.info(),
                              model.catalogue(), file->get())
                  .ok());
  auto loaded = Snapshot::Load({.path = folder_.File("with_text")}, Log([](absl::string_view) {}));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ASSERT_TRUE(live_->Attach(*loaded).ok());
  std::vector<LiveItems::BadItem> bad;
  const auto upsert = [&](const std::string& record, bool encode) {
    return live_
        ->Upsert({{.id = "new", .record = record, .features = {}, .encode_text = encode}}, **loaded,
                 bad)
        .status();
  };
  const auto expect = [&](const std::string& record) {
    const std::vector<ModalityRow> rows = {
        {"text", fitted->encoder.Encode(ItemText(record, fields))}};
    const auto view = (*loaded)->items();
    const std::vector<float> expected =
        ProjectItem((*loaded)->checkpoint().view(), (*loaded)->checkpoint().info(), rows);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), view->RowOf(*view->Find("new"))));
  };
  ASSERT_TRUE(upsert(R"({"title": "Title 7", "brand": "Brand 1"})", true).ok());
  expect(R"({"title": "Title 7", "brand": "Brand 1"})");
  // The text follows the record.
  ASSERT_TRUE(upsert(R"({"title": "Title 9"})", false).ok());
  expect(R"({"title": "Title 9"})");
  EXPECT_EQ(upsert(R"({"title": "zzz"})", true).code(), absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(bad.size(), 1u);
  EXPECT_THAT(bad[0].why.message(), HasSubstr("has no word in the fields title, brand"));
  expect(R"({"title": "Title 9"})");
  // The other model cannot, and serves without it.
  EXPECT_FALSE(snapshot_->items()->Find("new").has_value());
  EXPECT_EQ(snapshot_->items()->counts().skipped, 1);
}

TEST_F(LiveItemsRpcTest, KeepsNoMoreThanItMay) {
  Start({.max_items = 3});
  for (const char* id : {"a", "b", "item-1"}) Upsert(id, Features(1));
  v1::UpsertItemsRequest request;
  Add(request, "c", Features(1));
  const absl::Status full = client_->UpsertItems(request).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(full.message(), HasSubstr("at most 3 are (--max-live-items)"));
  Upsert("b", Features(2));  // no more than before
  Remove({"a"});
  EXPECT_TRUE(client_->UpsertItems(request).ok());
  Start({.max_bytes = 1 << 16});
  request.mutable_items(0)->set_record(absl::StrCat(R"({"x": ")", std::string(60'000, 'x'), "\"}"));
  EXPECT_TRUE(client_->UpsertItems(request).ok());
  request.mutable_items(0)->set_item_id("item-2");
  EXPECT_THAT(client_->UpsertItems(request).status().message(), HasSubstr("(--max-live-bytes)"));
}

TEST_F(LiveItemsRpcTest, AServerWithoutAFolderTakesNone) {
  auto server = Server::Start({.listen = "127.0.0.1:0"}, snapshot_);
  ASSERT_TRUE(server.ok());
  const RecommendClient client({.server = (*server)->address(), .timeout = absl::Seconds(60)});
  v1::UpsertItemsRequest request;
  Add(request, "a", Features(1));
  const absl::Status status = client.UpsertItems(request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("--items-folder"));
}

TEST_F(LiveItemsRpcTest, NobodyEverGetsWhatWasRemovedBeforeTheyAsked) {
  // What is certain of each: counts up at every change; its last two bits are 1 where the item is
  // certainly there, 2 where it is certainly gone.
  std::vector<std::atomic<int>> state(4);
  std::atomic<bool> stop = false;
  std::atomic<int> asked = 0;
  std::vector<std::jthread> readers;
  for (const int dim : {8, 64}) {
    readers.emplace_back([&, dim] {
      v1::RecommendRequest request;
      request.set_k(400);
      request.set_dim(dim);
      for (bool last = false; !last;) {
        last = stop && asked >= 20;
        int before[4];
        for (size_t i = 0; i < 4; ++i) before[i] = state[i];
        std::set<std::string> ids;
        const v1::RecommendResponse response = Recommend(request);
        for (const v1::RecommendedItem& item : response.items()) {
          EXPECT_TRUE(ids.insert(item.item_id()).second) << item.item_id();
        }
        ++asked;
        for (size_t i = 0; i < 4; ++i) {
          if (before[i] % 4 == 0 || before[i] != state[i]) continue;
          EXPECT_EQ(ids.contains(absl::StrCat("live-", i)), before[i] % 4 == 1);
        }
        if (response.items_size() == 0) break;  // the server is gone
      }
    });
  }
  for (int round = 0; round < 40; ++round) {
    const size_t i = static_cast<size_t>(round) % 4;
    const std::string id = absl::StrCat("live-", i);
    const int certain = 4 * (round + 1);
    state[i] = certain;
    if (round % 8 < 4) {
      Upsert(id, Features(static_cast<uint64_t>(round), 2));
      state[i] = certain + 1;
    } else {
      Remove({id});
      state[i] = certain + 2;
    }
  }
  stop = true;
}

}  // namespace
}  // namespace nestrec
