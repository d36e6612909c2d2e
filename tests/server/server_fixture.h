// A server of this process over a small random model, beside brute force over its vectors.
#pragma once

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <map>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "index/item_index.h"
#include "index/score.h"
#include "nestrec/v1/recommend.grpc.pb.h"
#include "server/client.h"
#include "server/rpc_status.h"
#include "server/server.h"
#include "server/status_details.h"
#include "tests/server/model_server.h"
#include "tests/server/raw_rpc.h"
#include "tests/testing/random_model.h"

namespace nestrec {

inline constexpr int64_t kItems = 500;
inline constexpr int kMaxLen = 10;

class ServerTest : public ModelServerTest {
 protected:
  static void SetUpTestSuite() {
    LoadModel(
        {.sizes = {8, 24, 64}, .blocks = 2, .items = kItems, .max_len = kMaxLen},
        {.tiers = {.tiers = {{.name = "gold", .dim = 64, .index = {}},
                             {.name = "graph", .dim = 24, .index = {"HNSW16", "efSearch=64"}}},
                   .default_tier = "gold"},
         .threads = 2});
  }

  void Start(ServerOptions options) {
    StartServer(std::move(options));
    channel_ = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
  }
  void SetUp() override { Start({.threads = 2}); }

  // Ranks everything by the definition: z at `dim`, canonical scores, ties by number.
  static std::vector<ScoredItem> BruteForce(const std::vector<int32_t>& history, int dim, int64_t k,
                                            const std::set<int32_t>& excluded) {
    const ModelView& view = snapshot().checkpoint().view();
    const int levels = *view.sizes.LevelsOf(dim);
    std::vector<float> z(static_cast<size_t>(dim));
    const History span(history);
    EXPECT_TRUE(snapshot().encoder().Encode(std::span(&span, 1), levels, z).ok());
    const LevelVectors vectors{.sizes = view.sizes, .rows = view.item_rows, .levels = view.items};
    std::vector<ScoredItem> all;
    for (int32_t item = 1; item <= kItems; ++item) {
      if (!excluded.contains(item)) {
        all.push_back({item, CanonicalScore(z, vectors, levels, item)});
      }
    }
    std::sort(all.begin(), all.end(), RanksBefore);
    all.resize(std::min(all.size(), static_cast<size_t>(k)));
    return all;
  }

  static v1::RecommendRequest RequestFor(const std::vector<int32_t>& history) {
    v1::RecommendRequest request;
    for (const int32_t item : history) {
      request.add_history_item_ids(RandomModelItemId(item));
    }
    return request;
  }

  static void ExpectItems(const v1::RecommendResponse& response,
                          const std::vector<ScoredItem>& expected) {
    ASSERT_EQ(response.items_size(), static_cast<int>(expected.size()));
    for (int i = 0; i < response.items_size(); ++i) {
      const ScoredItem& item = expected[static_cast<size_t>(i)];
      EXPECT_EQ(response.items(i).item_id(), RandomModelItemId(item.item)) << i;
      EXPECT_EQ(response.items(i).score(), item.score) << i;
    }
  }

  v1::RecommendResponse MustRecommend(const v1::RecommendRequest& request) {
    auto response = client_->Recommend(request);
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? *std::move(response) : v1::RecommendResponse();
  }

  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace nestrec
