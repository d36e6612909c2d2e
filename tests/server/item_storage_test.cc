// Items in float16: what a snapshot holds then, and what its searches, live items and memory are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "base/file.h"
#include "index/score.h"
#include "model/checkpoint.h"
#include "server/live/live_items.h"
#include "server/memory_budget.h"
#include "server/recommender.h"
#include "server/snapshot.h"
#include "tests/testing/random_model.h"
#include "tests/testing/resident_bytes.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kItems = 5000;

class ItemStorageTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    model_ = new RandomModel({.sizes = {8, 64}, .items = kItems});
    ASSERT_TRUE(model_->Write(folder_->File("m")).ok());
  }
  static void TearDownTestSuite() {
    delete model_;
    delete folder_;
  }

  absl::StatusOr<std::shared_ptr<const Snapshot>> Load(Snapshot::Options options = {}) {
    if (options.path.empty()) options.path = folder_->File("m");
    options.item_storage = ItemStorage::kFloat16;
    return Snapshot::Load(
        options, Log([this](absl::string_view line) { lines_ += std::string(line) + "\n"; }));
  }
  // The model's vector after rounding, written apart from the product's code but for one value.
  static std::vector<float> Rounded(int32_t item, int levels) {
    std::vector<float> vector;
    const ModelView& view = model_->view();
    for (int level = 0; level < levels; ++level) {
      const auto width = static_cast<size_t>(view.sizes.width(level));
      for (const float value : view.items[static_cast<size_t>(level)].subspan(
               static_cast<size_t>(item) * width, width)) {
        vector.push_back(FloatOfHalf(HalfOfFloat(value)));
      }
    }
    return vector;
  }
  static std::vector<ScoredItem> Best(std::span<const float> query, int levels, size_t k) {
    std::vector<ScoredItem> all;
    for (int32_t item = 1; item <= kItems; ++item) {
      all.push_back(
          {item, CanonicalScore(query, Rounded(item, levels), model_->view().sizes, levels)});
    }
    std::sort(all.begin(), all.end(), RanksBefore);
    all.resize(k);
    return all;
  }
  static void ExpectSearchesTheHalves(const Snapshot& snapshot) {
    ASSERT_TRUE(snapshot.item_vectors().half());
    Random random(2);
    for (const int dim : snapshot.sizes().values()) {
      const int levels = *snapshot.sizes().LevelsOf(dim);
      std::vector<float> query;
      for (int i = 0; i < dim; ++i) query.push_back(static_cast<float>(random.Normal()));
      const auto found = snapshot.index(dim, IndexSpec{}).Search(query, {.k = 20});
      ASSERT_TRUE(found.ok()) << found.status();
      EXPECT_TRUE(found->exact);
      EXPECT_EQ(found->items, Best(query, levels, 20)) << dim;
    }
  }

  static inline TempFolder* folder_ = nullptr;
  static inline RandomModel* model_ = nullptr;
  std::string lines_;  // one thread builds
};

TEST_F(ItemStorageTest, SearchesAreExactOverTheRoundedVectorsAtEveryWidth) {
  const auto snapshot = Load();
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  ExpectSearchesTheHalves(**snapshot);
  EXPECT_THAT(lines_, HasSubstr("info items_rounded storage=float16 bytes=640128 "));
  EXPECT_THAT(lines_, HasSubstr("info index_built dim=64 index=nested "));
  // A similar item's query, and what diversity compares.
  std::vector<float> vector(64);
  CopyItemVector(**snapshot, *(*snapshot)->items(), 17, 2, vector);
  EXPECT_EQ(vector, Rounded(17, 2));
  const auto alike = (*snapshot)->cosine_index(2).Search(vector, {.k = 1});
  ASSERT_TRUE(alike.ok());
  EXPECT_EQ(alike->items, (std::vector<ScoredItem>{{17, 1.0f}}));
}

TEST_F(ItemStorageTest, RoundedItemsAreKeptBesideTheIndexes) {
  const Snapshot::Options options = {.index_folder = folder_->File("kept")};
  ASSERT_TRUE(Load(options).ok());
  EXPECT_THAT(lines_, HasSubstr("info items_rounded "));
  lines_.clear();
  const auto again = Load(options);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_THAT(lines_, HasSubstr("info rounded_items_loaded storage=float16 "));
  EXPECT_THAT(lines_, HasSubstr("info index_loaded dim=64 index=nested "));
  ExpectSearchesTheHalves(**again);

  const std::string path = options.index_folder + "/level1-float16.index";
  std::string bytes = *ReadFile(path);
  bytes[bytes.size() / 2] ^= 1;
  ASSERT_TRUE(WriteFileAtomically(path, bytes).ok());
  lines_.clear();
  const auto damaged = Load(options);
  ASSERT_TRUE(damaged.ok()) << damaged.status();
  EXPECT_THAT(lines_, HasSubstr("warning rounded_items_not_loaded why="));
  EXPECT_THAT(lines_, HasSubstr("info items_rounded "));
  ExpectSearchesTheHalves(**damaged);
}

TEST_F(ItemStorageTest, ServesFromMemoryWhereTheFolderCannotBeWritten) {
  ASSERT_TRUE(WriteFileAtomically(folder_->File("file"), "no folder").ok());
  const auto snapshot = Load({.index_folder = folder_->File("file/kept")});
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_THAT(lines_, HasSubstr("warning rounded_items_not_saved why="));
  ExpectSearchesTheHalves(**snapshot);
}

TEST_F(ItemStorageTest, AModelWithAValueThatFloat16HasNotIsRefusedWithTheCure) {
  std::vector<std::vector<float>> levels;
  ModelView view = model_->view();
  for (auto& level : view.items) {
    levels.emplace_back(level.begin(), level.end());
    level = levels.back();
  }
  levels[1][17 * 56 + 3] = 70000;
  const std::string path = folder_->File("large");
  ASSERT_TRUE(WriteCheckpoint(path, view, model_->info(), model_->catalogue(), nullptr).ok());
  const auto snapshot = Load({.path = path});
  EXPECT_EQ(snapshot.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(
      std::string(snapshot.status().message()),
      HasSubstr("large, --item-storage: item 17 has 70000 in column 11; float16 ends at 65504: "
                "store these vectors as float32"));
}

TEST_F(ItemStorageTest, UpsertedItemsAreRoundedAsTheOthersAre) {
  const Log quiet([](absl::string_view) {});
  const auto live = LiveItems::Open({.folder = folder_->File("items")}, quiet);
  ASSERT_TRUE(live.ok()) << live.status();
  const auto snapshot = Load();
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  ASSERT_TRUE((*live)->Attach(*snapshot).ok());
  const auto upsert = [&](float scale, std::vector<LiveItems::BadItem>& bad) {
    std::vector<float> features(12, scale);
    return (*live)->Upsert({{.id = "new", .features = {{.modality = "text", .values = features}}}},
                           **snapshot, bad);
  };
  std::vector<LiveItems::BadItem> bad;
  ASSERT_TRUE(upsert(0.3f, bad).ok());
  const auto view = (*snapshot)->items();
  std::vector<float> vector(64);
  CopyItemVector(**snapshot, *view, static_cast<int32_t>(kItems) + 1, 2, vector);
  float most = 0;
  for (const float value : vector) {
    EXPECT_EQ(value, FloatOfHalf(HalfOfFloat(value)));
    most = std::max(most, std::abs(value));
  }
  EXPECT_GT(most, 0);
  EXPECT_EQ(upsert(1e6f, bad).status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_EQ(bad.size(), 1u);
  EXPECT_THAT(std::string(bad[0].why.message()), HasSubstr("float16, which ends at 65504"));
}

TEST_F(ItemStorageTest, TheEstimateOfMemoryCountsHalvesInThePlaceOfFloats) {
  const NestedSizes sizes = *NestedSizes::Create({8, 64});
  const TierTable tiers = *TierTable::Create({}, sizes);
  const uint64_t floats = (kItems + 1) * 64 * 4;
  const ModelMemory full = EstimateModelMemory(sizes, 2, tiers, kItems, floats + 1000, 7,
                                               {.storage = ItemStorage::kFloat32});
  const ModelMemory kept = EstimateModelMemory(sizes, 2, tiers, kItems, floats + 1000, 7,
                                               {.storage = ItemStorage::kFloat16});
  EXPECT_EQ(full.mapped_bytes, floats + 1000);
  EXPECT_EQ(kept.mapped_bytes, floats / 2 + 1000);
  EXPECT_EQ(kept.index_bytes, full.index_bytes);
  const ModelMemory in_memory =
      EstimateModelMemory(sizes, 2, tiers, kItems, floats + 1000, 7,
                          {.storage = ItemStorage::kFloat16, .in_files = false});
  EXPECT_EQ(in_memory.mapped_bytes, 1000u);
  EXPECT_EQ(in_memory.index_bytes, full.index_bytes + floats / 2);
}

// What /proc/self/smaps says after loading and searching in every way.
TEST_F(ItemStorageTest, AServerHoldsTheHalvesAndNotTheFloats) {
  constexpr int64_t kMany = 10'000;
  const std::string path = folder_->File("resident.safetensors");
  const RandomModel model({.sizes = {8, 256}, .items = kMany});
  ASSERT_TRUE(model.Write(path).ok());
  const Snapshot::Options options = {.path = path, .index_folder = folder_->File("resident")};
  const auto search = [](const Snapshot& snapshot) {
    for (const int dim : snapshot.sizes().values()) {
      const std::vector<float> query(static_cast<size_t>(dim), 0.5f);
      EXPECT_TRUE(snapshot.index(dim, IndexSpec{}).Search(query, {.k = kMany}).ok());
    }
  };
  const int64_t floats = (kMany + 1) * 256 * 4;
  constexpr int64_t kMiB = 1 << 20;
  {
    const auto snapshot = Load(options);
    ASSERT_TRUE(snapshot.ok()) << snapshot.status();
    search(**snapshot);
    EXPECT_GE(ResidentBytes("-float16.index"), floats / 2);
    EXPECT_LT(ResidentBytes("-float16.index"), floats / 2 + kMiB);
    const int64_t rest = static_cast<int64_t>((*snapshot)->checkpoint().LevelBytes(2)) - floats;
    EXPECT_LT(ResidentBytes("resident.safetensors"), rest + floats / 8);
  }
  // That it is not the measure that sees nothing.
  const auto snapshot = Snapshot::Load(options, Log([](absl::string_view) {}));
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  search(**snapshot);
  EXPECT_GE(ResidentBytes("resident.safetensors"), floats);
}

}  // namespace
}  // namespace nestrec
