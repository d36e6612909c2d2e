// A server of this process whose items are upserted and removed over gRPC, beside brute force over
// what there should be.
#pragma once

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

inline constexpr int32_t kItems = 300;
inline constexpr int kFeatures = 12;
inline const std::vector<int> kDims = {8, 24, 64};

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

}  // namespace nestrec
