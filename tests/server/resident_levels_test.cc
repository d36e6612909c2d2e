// How much of a checkpoint is in the memory of a server that is limited to a width: the first
// levels, which are all that it reads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/snapshot.h"
#include "tests/testing/random_model.h"
#include "tests/testing/resident_bytes.h"

namespace nestrec {
namespace {

constexpr int64_t kItems = 10'000;
constexpr int64_t kMiB = 1 << 20;

class ResidentLevels : public ::testing::Test {
 protected:
  ResidentLevels()
      : path_(absl::StrCat(::testing::TempDir(), "/resident_levels_", getpid(), ".safetensors")) {}
  ~ResidentLevels() override { std::filesystem::remove(path_); }

  // After loading, searching in every way, and looking up an item.
  int64_t ResidentAt(int max_dim) {
    const auto snapshot = Snapshot::Load({.path = path_, .max_dim = max_dim, .threads = 1},
                                         Log([](absl::string_view) {}));
    EXPECT_TRUE(snapshot.ok()) << snapshot.status();
    if (!snapshot.ok()) return 0;
    for (const int dim : (*snapshot)->sizes().values()) {
      const std::vector<float> query(static_cast<size_t>(dim), 0.5f);
      EXPECT_TRUE((*snapshot)->index(dim, IndexSpec{}).Search(query, {.k = kItems}).ok());
    }
    return ResidentBytes(std::filesystem::path(path_).filename().string());
  }

  std::string path_;
};

TEST_F(ResidentLevels, AReplicaOfANarrowWidthHoldsTheFirstLevelsAlone) {
  const RandomModel model({.sizes = {8, 16, 64, 512}, .items = kItems});
  ASSERT_TRUE(model.Write(path_).ok());
  const auto bytes_of_items = [](int64_t dim) {
    return (kItems + 1) * dim * static_cast<int64_t>(sizeof(float));
  };
  const int64_t narrow = ResidentAt(64);
  EXPECT_GE(narrow, bytes_of_items(64));
  EXPECT_LT(narrow, bytes_of_items(64) + 4 * kMiB);
  const int64_t narrower = ResidentAt(16);
  EXPECT_GE(narrower, bytes_of_items(16));
  EXPECT_LT(narrower, bytes_of_items(16) + 4 * kMiB);
  EXPECT_LT(narrower, narrow);
  // That it is not the measure that sees nothing: all levels, where all are served.
  EXPECT_GE(ResidentAt(0), bytes_of_items(512));
}

}  // namespace
}  // namespace nestrec
