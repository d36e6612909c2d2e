// Items in an engine outside, asked with a vector of Encode: what a front over shards of
// `nestrec export --embeddings` finds is what Recommend returns.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "base/file.h"
#include "base/npy.h"
#include "server/client.h"
#include "tests/cli/program.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kItems = 1000;
constexpr int kShards = 3;

struct Found {
  std::string item_id;
  double score;
};

bool IsBetter(const Found& a, const Found& b) { return a.score > b.score; }

// A shard of another engine: the vectors of some of the items, searched one by one.
class Shard {
 public:
  void Add(std::string id, std::vector<float> vector) {
    items_.emplace_back(std::move(id), std::move(vector));
  }
  std::vector<Found> Best(const std::vector<float>& query, size_t k,
                          const std::unordered_set<std::string>& excluded) const {
    std::vector<Found> found;
    for (const auto& [id, vector] : items_) {
      if (excluded.contains(id)) continue;
      double score = 0;
      for (size_t i = 0; i < query.size(); ++i) score += double{query[i]} * vector[i];
      found.push_back({id, score});
    }
    std::sort(found.begin(), found.end(), IsBetter);
    found.resize(std::min(k, found.size()));
    return found;
  }

 private:
  std::vector<std::pair<std::string, std::vector<float>>> items_;
};

class EncodeProgramTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    suite_ = std::make_unique<Suite>();
    ASSERT_TRUE(RandomModel({.sizes = {8, 16, 32, 64}, .items = kItems}).Write(Model()).ok());
    suite_->server = StartServer(Model(), suite_->folder.path());
    suite_->client = std::make_unique<RecommendClient>(
        RecommendClient::Options{.server = suite_->server.address, .timeout = absl::Seconds(60)});
  }
  static void TearDownTestSuite() { suite_.reset(); }

  static std::string Model() { return suite_->folder.File("m.safetensors"); }
  static const RecommendClient& client() { return *suite_->client; }
  static std::string Address() { return suite_->server.address; }

  // The export at a width, dealt out to shards by item.
  static std::vector<Shard> Export(int dim) {
    const std::string output = suite_->folder.File(absl::StrCat("items", dim, ".npy"));
    const ProgramResult exported =
        RunProgram({"export", "--embeddings", "--model", Model(), "--dim", absl::StrCat(dim), "-o",
                    output, "--overwrite"});
    EXPECT_EQ(exported.exit_code, 0) << exported.output;
    const absl::StatusOr<Matrix> matrix = ReadNpy(output);
    EXPECT_TRUE(matrix.ok()) << matrix.status();
    const std::vector<std::string> ids =
        absl::StrSplit(*ReadFile(suite_->folder.File(absl::StrCat("items", dim, ".ids.jsonl"))),
                       '\n', absl::SkipEmpty());
    std::vector<Shard> shards(kShards);
    for (int64_t row = 0; row < matrix->rows; ++row) {
      const std::span<const float> vector = matrix->row(row);
      shards[static_cast<size_t>(row % kShards)].Add(
          nlohmann::json::parse(ids[static_cast<size_t>(row)]), {vector.begin(), vector.end()});
    }
    return shards;
  }
  static std::vector<Found> Merged(const std::vector<Shard>& shards,
                                   const v1::EncodeResponse& encoded, size_t k) {
    const std::vector<float> query(encoded.vector().begin(), encoded.vector().end());
    const std::unordered_set<std::string> seen(encoded.seen_item_ids().begin(),
                                               encoded.seen_item_ids().end());
    std::vector<Found> all;
    for (const Shard& shard : shards) {
      const std::vector<Found> best = shard.Best(query, k, seen);
      all.insert(all.end(), best.begin(), best.end());
    }
    std::sort(all.begin(), all.end(), IsBetter);
    all.resize(std::min(k, all.size()));
    return all;
  }
  // The same items in the same order, but for items whose scores are equal as floats.
  static void ExpectSame(const v1::RecommendResponse& recommended,
                         const std::vector<Found>& merged) {
    ASSERT_EQ(static_cast<size_t>(recommended.items_size()), merged.size());
    for (int i = 0; i < recommended.items_size(); ++i) {
      const v1::RecommendedItem& item = recommended.items(i);
      const Found& found = merged[static_cast<size_t>(i)];
      EXPECT_FLOAT_EQ(item.score(), static_cast<float>(found.score)) << i;
      const bool tied =
          (i > 0 && recommended.items(i - 1).score() == item.score()) ||
          (i + 1 < recommended.items_size() && recommended.items(i + 1).score() == item.score());
      if (!tied) {
        EXPECT_EQ(item.item_id(), found.item_id) << i;
      }
    }
  }

 private:
  struct Suite {
    TempFolder folder;
    RunningServer server;
    std::unique_ptr<RecommendClient> client;
  };
  static inline std::unique_ptr<Suite> suite_;
};

TEST_F(EncodeProgramTest, MergedShardsFindWhatRecommendReturnsAtEveryWidth) {
  const std::vector<std::vector<int>> histories = {
      {}, {2}, {14, 15, 92}, {6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 999, 1000}};
  for (const int dim : {8, 16, 32, 64}) {
    const std::vector<Shard> shards = Export(dim);
    for (const std::vector<int>& history : histories) {
      v1::EncodeRequest encode;
      v1::RecommendRequest recommend;
      for (const int item : history) {
        encode.add_history_item_ids(RandomModelItemId(item));
        recommend.add_history_item_ids(RandomModelItemId(item));
      }
      encode.set_dim(dim);
      encode.set_return_seen(true);
      recommend.set_dim(dim);
      recommend.set_k(50);
      const auto encoded = client().Encode(encode);
      ASSERT_TRUE(encoded.ok()) << encoded.status();
      const auto recommended = client().Recommend(recommend);
      ASSERT_TRUE(recommended.ok()) << recommended.status();
      EXPECT_EQ(recommended->items_size(), 50);
      ExpectSame(*recommended, Merged(shards, *encoded, 50));
    }
  }
}

TEST_F(EncodeProgramTest, OneExportServesNarrowerVectorsByItsFirstColumns) {
  const std::vector<Shard> shards = Export(64);
  v1::EncodeRequest encode;
  encode.add_history_item_ids(RandomModelItemId(77));
  encode.set_dim(16);
  encode.set_return_seen(true);
  v1::RecommendRequest recommend;
  recommend.add_history_item_ids(RandomModelItemId(77));
  recommend.set_dim(16);
  const auto encoded = client().Encode(encode);
  const auto recommended = client().Recommend(recommend);
  ASSERT_TRUE(encoded.ok() && recommended.ok());
  ExpectSame(*recommended, Merged(shards, *encoded, 10));
}

TEST_F(EncodeProgramTest, TheCommandPrintsWhatTheCallReturns) {
  const std::string server = Address();
  const ProgramResult json =
      RunProgram({"encode", "--server", server, "--history", "item-14,item-15,none", "--dim", "16",
                  "--seen", "--json"});
  ASSERT_EQ(json.exit_code, 0) << json.output;
  const nlohmann::json answer = nlohmann::json::parse(json.output);
  v1::EncodeRequest encode;
  encode.add_history_item_ids("item-14");
  encode.add_history_item_ids("item-15");
  encode.set_dim(16);
  const auto encoded = client().Encode(encode);
  ASSERT_TRUE(encoded.ok()) << encoded.status();
  EXPECT_EQ(answer.at("vector").get<std::vector<float>>(),
            std::vector<float>(encoded->vector().begin(), encoded->vector().end()));
  EXPECT_EQ(answer.at("seenItemIds"), nlohmann::json({"item-14", "item-15"}));
  EXPECT_EQ(answer.at("served").at("modelVersion"), encoded->served().model_version());

  const ProgramResult text =
      RunProgram({"encode", "--server", server, "--history", "item-14,none", "--seen"});
  ASSERT_EQ(text.exit_code, 0) << text.output;
  EXPECT_THAT(text.output, HasSubstr(", ...]\n"));
  EXPECT_THAT(text.output, HasSubstr("not in the catalogue, skipped: 1 of the history (none)"));
  EXPECT_THAT(text.output, HasSubstr("seen: item-14\n"));
  EXPECT_THAT(text.output, HasSubstr("64 numbers (tier "));
  EXPECT_THAT(text.output, HasSubstr("encode "));
}

TEST_F(EncodeProgramTest, AServerForVectorsAloneMakesTheSameOnes) {
  const TempFolder folder;
  const RunningServer encoder =
      StartServer(Model(), folder.path(), {"--encode-only", "--max-dim", "32"});
  v1::EncodeRequest encode;
  encode.add_history_item_ids("item-14");
  encode.add_history_item_ids("item-15");
  encode.set_dim(32);
  const RecommendClient other({.server = encoder.address, .timeout = absl::Seconds(60)});
  const auto expected = client().Encode(encode);
  const auto encoded = other.Encode(encode);
  ASSERT_TRUE(expected.ok() && encoded.ok()) << encoded.status();
  EXPECT_THAT(encoded->vector(), ::testing::ElementsAreArray(expected->vector()));
  EXPECT_EQ(encoded->served().model_version(), expected->served().model_version());
  const ProgramResult refused = RunProgram({"recommend", "--server", encoder.address});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.output, HasSubstr("this server makes vectors alone (--encode-only)"));
  EXPECT_EQ(
      RunProgram({"serve", "--model", Model(), "--encode-only", "--items-folder", "x"}).exit_code,
      2);
}

TEST_F(EncodeProgramTest, TheCommandSaysWhatItCannotDo) {
  const std::string server = Address();
  const ProgramResult width = RunProgram({"encode", "--server", server, "--dim", "17"});
  EXPECT_EQ(width.exit_code, 1);
  EXPECT_THAT(width.output, HasSubstr("17 is not one of the sizes served here"));
  EXPECT_EQ(RunProgram({"encode", "--server", server, "--dim", "8", "--tier", "gold"}).exit_code,
            2);
  EXPECT_EQ(RunProgram({"encode", "--server", server, "--k", "3"}).exit_code, 2);
  const ProgramResult user = RunProgram({"encode", "--server", server, "--user", "ann"});
  EXPECT_EQ(user.exit_code, 1);
  EXPECT_THAT(user.output, HasSubstr("keeps no sessions"));
}

}  // namespace
}  // namespace nestrec
