#include "server/snapshot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "tests/testing/random_model.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class SnapshotTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_TRUE(RandomModel({.sizes = {8, 16, 32}}).Write(Path()).ok());
  }
  static std::string Path() { return ::testing::TempDir() + "/snapshot_test.safetensors"; }

  absl::StatusOr<std::shared_ptr<const Snapshot>> Load(Snapshot::Options options) {
    if (options.path.empty()) options.path = Path();
    return Snapshot::Load(
        options, Log([this](absl::string_view line) { lines_ += std::string(line) + "\n"; }));
  }
  std::string lines_;  // one thread builds
};

TEST_F(SnapshotTest, HasAnExactIndexForEverySize) {
  const auto snapshot = Load({});
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  for (const int dim : {8, 16, 32}) {
    EXPECT_EQ((*snapshot)->index(dim, IndexSpec{}).dim(), dim);
    EXPECT_TRUE((*snapshot)->index(dim, IndexSpec{}).exact());
    EXPECT_GE((*snapshot)->index_bytes(dim), 200 * dim * 4);
  }
  EXPECT_EQ((*snapshot)->tiers().Names(), "gold, silver");
  EXPECT_EQ((*snapshot)->version().size(), 16u);
}

TEST_F(SnapshotTest, LogsItsProgress) {
  ASSERT_TRUE(Load({}).ok());
  EXPECT_THAT(lines_, HasSubstr("info model_loaded "));
  EXPECT_THAT(lines_, HasSubstr("info index_built dim=32 index=Flat "));
  EXPECT_THAT(lines_, HasSubstr("info index_built dim=8 index=Flat "));
}

TEST_F(SnapshotTest, ServesAnyMixerAndSaysWhatAStepCosts) {
  const std::string path = ::testing::TempDir() + "/snapshot_test_attention.safetensors";
  const RandomModel model({.feature_width = 0, .architecture = {.mixer = Mixer::kAttention}});
  ASSERT_TRUE(model.Write(path).ok());
  const auto snapshot = Load({.path = path});
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_FALSE((*snapshot)->encoder().constant_time_step());
  EXPECT_THAT(lines_, HasSubstr("mixer=\"attention, heads of 64\" constant_time_step=false"));
}

TEST_F(SnapshotTest, HoldsTheTiersIndexBesideTheExactOne) {
  const IndexSpec graph{.factory = "HNSW16", .parameters = "efSearch=64"};
  const auto snapshot =
      Load({.tiers = {.tiers = {{.name = "fast", .dim = 16, .index = graph}}, .default_tier = ""}});
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_FALSE((*snapshot)->index(16, graph).exact());
  EXPECT_TRUE((*snapshot)->index(16, IndexSpec{}).exact());
}

TEST_F(SnapshotTest, ATierMayUseTheNestedIndex) {
  const IndexSpec nested{.factory = "nested", .parameters = ""};
  const auto snapshot = Load(
      {.tiers = {.tiers = {{.name = "fast", .dim = 16, .index = nested}}, .default_tier = ""}});
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_THAT(lines_, HasSubstr("info index_built dim=16 index=nested "));
  const ItemIndex& index = (*snapshot)->index(16, nested);
  EXPECT_TRUE(index.exact());
  const std::vector<float> query(16, 0.5f);
  EXPECT_EQ(index.Search(query, {.k = 7})->items,
            (*snapshot)->index(16, IndexSpec{}).Search(query, {.k = 7})->items);
}

TEST_F(SnapshotTest, KeepsIndexesThatTakeLongToBuild) {
  const Snapshot::Options options = {
      .path = {},
      .tiers = {.tiers = {{.name = "fast", .dim = 16, .index = {"HNSW16", "efSearch=64"}}},
                .default_tier = ""},
      .index_folder = ::testing::TempDir() + "/snapshot_test_indexes/nested"};
  std::filesystem::remove_all(options.index_folder);
  ASSERT_TRUE(Load(options).ok());
  EXPECT_THAT(lines_, HasSubstr("info index_built dim=16 index=HNSW16 "));
  EXPECT_THAT(lines_, HasSubstr("info index_saved dim=16 index=HNSW16 path="));
  EXPECT_THAT(lines_, Not(HasSubstr("index_not_loaded")));
  EXPECT_THAT(lines_, Not(HasSubstr("index_saved dim=16 index=Flat")));
  lines_.clear();
  ASSERT_TRUE(Load(options).ok());
  EXPECT_THAT(lines_, HasSubstr("info index_loaded dim=16 index=HNSW16 "));
  EXPECT_THAT(lines_, Not(HasSubstr("index_built dim=16 index=HNSW16")));

  // A checkpoint of the same shape with other weights.
  lines_.clear();
  Snapshot::Options other = options;
  other.path = ::testing::TempDir() + "/snapshot_test_other.safetensors";
  ASSERT_TRUE(RandomModel({.sizes = {8, 16, 32}, .seed = 2}).Write(other.path).ok());
  ASSERT_TRUE(Load(other).ok());
  EXPECT_THAT(lines_, HasSubstr("warning index_not_loaded dim=16 index=HNSW16 why="));
  EXPECT_THAT(lines_, HasSubstr("info index_saved dim=16"));
}

TEST_F(SnapshotTest, KeepsTheNestedIndexsCodes) {
  const Snapshot::Options options = {
      .path = ::testing::TempDir() + "/snapshot_test_many.safetensors",
      .index_folder = ::testing::TempDir() + "/snapshot_test_codes"};
  std::filesystem::remove_all(options.index_folder);
  ASSERT_TRUE(RandomModel({.sizes = {8, 64}, .items = 5000}).Write(options.path).ok());
  const auto first = Load(options);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_THAT(lines_, HasSubstr("info index_built dim=64 index=nested "));
  EXPECT_THAT(lines_, HasSubstr("info index_saved dim=64 index=nested path="));
  EXPECT_THAT(lines_, Not(HasSubstr("index_saved dim=8")));
  lines_.clear();
  const auto second = Load(options);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_THAT(lines_, HasSubstr("info index_loaded dim=64 index=nested "));
  EXPECT_THAT(lines_, Not(HasSubstr("index_built dim=64")));
  const std::vector<float> query(64, 0.5f);
  const auto best = (*second)->index(64, IndexSpec{}).Search(query, {.k = 7});
  ASSERT_TRUE(best.ok()) << best.status();
  EXPECT_TRUE(best->exact);
  EXPECT_EQ(best->items, (*first)->index(64, IndexSpec{}).Search(query, {.k = 7})->items);
}

TEST_F(SnapshotTest, ServesFromMemoryWhereIndexesCannotBeKept) {
  const std::string file = ::testing::TempDir() + "/snapshot_test_file";
  ASSERT_TRUE(WriteFileAtomically(file, "no folder").ok());
  const auto snapshot =
      Load({.tiers = {.tiers = {{.name = "fast", .dim = 16, .index = {"HNSW16", ""}}}},
            .index_folder = file + "/indexes"});
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_THAT(lines_, HasSubstr("warning index_not_saved dim=16 index=HNSW16 why="));
  EXPECT_THAT(lines_, HasSubstr("it serves from memory"));
  EXPECT_EQ((*snapshot)->index(16, {"HNSW16", ""}).items(), 200);
}

TEST_F(SnapshotTest, ReadsTheCataloguesFields) {
  const auto snapshot = Load({});
  ASSERT_TRUE(snapshot.ok());
  EXPECT_THAT((*snapshot)->attributes().FieldNames(),
              testing::ElementsAre("brand", "item_id", "price", "title"));
  EXPECT_THAT(lines_, HasSubstr("info catalogue_read filter_fields=4 "));
  lines_.clear();
  const auto some = Load({.tiers = {.filter_fields = {"brand", "colour"}}});
  ASSERT_TRUE(some.ok());
  EXPECT_THAT((*some)->attributes().FieldNames(), testing::ElementsAre("brand"));
  EXPECT_THAT(lines_, HasSubstr("warning filter_field_missing field=colour"));
}

TEST_F(SnapshotTest, MaxDimLoadsTheNarrowLevelsOnly) {
  const auto snapshot = Load({.max_dim = 16});
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ((*snapshot)->sizes().ToString(), "8,16");
  EXPECT_EQ((*snapshot)->tiers().default_tier().dim, 16);
}

TEST_F(SnapshotTest, RefusesATierBeyondMaxDim) {
  const auto snapshot =
      Load({.max_dim = 16, .tiers = {.tiers = {{.name = "a", .dim = 32, .index = {}}}}});
  EXPECT_EQ(snapshot.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(snapshot.status().message(), HasSubstr("tier \"a\" has dim 32"));
}

TEST_F(SnapshotTest, RefusesAMaxDimThatIsNotASize) {
  EXPECT_EQ(Load({.max_dim = 17}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(SnapshotTest, RefusesAnIndexThatFaissDoesNotKnow) {
  const auto snapshot =
      Load({.tiers = {.tiers = {{.name = "a", .dim = 8, .index = {"Flatt", ""}}}}});
  EXPECT_EQ(snapshot.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(snapshot.status().message(), HasSubstr("\"Flatt\""));
}

TEST_F(SnapshotTest, NamesAMissingFileAndADamagedOne) {
  EXPECT_EQ(Load({.path = "/no/such/model"}).status().code(), absl::StatusCode::kNotFound);
  std::string bytes = *ReadFile(Path());
  bytes[bytes.size() - 100] ^= 1;
  const std::string damaged = ::testing::TempDir() + "/snapshot_test_damaged.safetensors";
  ASSERT_TRUE(WriteFileAtomically(damaged, bytes).ok());
  EXPECT_EQ(Load({.path = damaged}).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace nestrec
