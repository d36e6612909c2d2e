// What a release wrote, every later program reads: tests/golden has a checkpoint of each.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "model/checkpoint.h"
#include "model/encoder.h"

namespace nestrec {
namespace {

// "## 0.1.0 - 2026-11-21" in the changelog.
std::vector<std::string> ReleasedVersions() {
  const std::string changelog = *ReadFile(absl::StrCat(NESTREC_SOURCE_DIR, "/CHANGELOG.md"));
  std::vector<std::string> versions;
  for (const absl::string_view line : absl::StrSplit(changelog, '\n')) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words.size() == 4 && words[0] == "##" && words[2] == "-") versions.push_back(words[1]);
  }
  return versions;
}

std::string CheckpointOf(const std::string& version) {
  return absl::StrCat(NESTREC_SOURCE_DIR, "/tests/golden/checkpoint_", version, ".safetensors");
}

// Ids by score at the first `levels` levels, best first.
std::vector<std::string> Ranked(const Checkpoint& checkpoint, const std::vector<int32_t>& history,
                                int levels) {
  const auto encoder = Encoder::Create(checkpoint.view(), nullptr);
  EXPECT_TRUE(encoder.ok()) << encoder.status();
  const auto dim = static_cast<size_t>(checkpoint.sizes().end(levels - 1));
  std::vector<float> z(dim);
  const History read(history);
  EXPECT_TRUE((*encoder)->Encode(std::span(&read, 1), levels, z).ok());
  const ModelView& view = checkpoint.view();
  std::vector<double> scores(static_cast<size_t>(view.item_rows), 0.0);
  for (int level = 0; level < levels; ++level) {
    const auto begin = static_cast<size_t>(view.sizes.begin(level));
    const size_t width = static_cast<size_t>(view.sizes.end(level)) - begin;
    for (size_t row = 0; row < scores.size(); ++row) {
      for (size_t i = 0; i < width; ++i) {
        scores[row] += static_cast<double>(z[begin + i]) *
                       static_cast<double>(view.items[static_cast<size_t>(level)][row * width + i]);
      }
    }
  }
  std::vector<int64_t> items(scores.size() - 1);
  std::iota(items.begin(), items.end(), 1);
  std::stable_sort(items.begin(), items.end(), [&](int64_t a, int64_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  std::vector<std::string> ids;
  for (const int64_t item : items) ids.emplace_back(checkpoint.catalogue()->id(item));
  return ids;
}

TEST(ReleasedCheckpoints, EveryReleaseHasItsFilesHere) {
  const std::vector<std::string> versions = ReleasedVersions();
  ASSERT_FALSE(versions.empty());
  for (const std::string& version : versions) {
    EXPECT_TRUE(std::filesystem::exists(CheckpointOf(version)))
        << "tests/golden/README.md says how to make " << CheckpointOf(version);
    EXPECT_TRUE(std::filesystem::exists(
        absl::StrCat(NESTREC_SOURCE_DIR, "/tests/golden/proto_", version, "/nestrec/v1")))
        << version;
  }
}

TEST(ReleasedCheckpoints, EachOpensAtEveryWidth) {
  for (const std::string& version : ReleasedVersions()) {
    const auto checkpoint = Checkpoint::Open(CheckpointOf(version), {});
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_EQ((*checkpoint)->info().program_version, version);
    for (int levels = 1; levels <= (*checkpoint)->sizes().levels(); ++levels) {
      const int dim = (*checkpoint)->sizes().end(levels - 1);
      const auto narrow = Checkpoint::Open(CheckpointOf(version), {.max_dim = dim});
      ASSERT_TRUE(narrow.ok()) << narrow.status();
      EXPECT_EQ(Ranked(**narrow, {1, 2, 3}, levels), Ranked(**checkpoint, {1, 2, 3}, levels));
    }
  }
}

TEST(ReleasedCheckpoints, ZeroPointOneRanksAsItDid) {
  const auto checkpoint = Checkpoint::Open(CheckpointOf("0.1.0"), {});
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const ModelInfo& info = (*checkpoint)->info();
  EXPECT_EQ(info.version, "22467c7cab123ba1");
  EXPECT_EQ(info.items, 18);
  EXPECT_EQ(info.max_len, 50);
  EXPECT_TRUE((*checkpoint)->has_text_encoder());
  ASSERT_EQ(info.test.size(), 2u);
  EXPECT_EQ(info.test[1].dim, 8);
  const Catalogue& catalogue = *(*checkpoint)->catalogue();
  const auto first = catalogue.Find("N 0 4");
  const auto second = catalogue.Find("N 0 5");
  ASSERT_TRUE(first.has_value() && second.has_value());
  std::vector<std::string> ids = Ranked(**checkpoint, {*first, *second}, 2);
  std::erase_if(ids, [](const std::string& id) { return id == "N 0 4" || id == "N 0 5"; });
  ids.resize(5);
  EXPECT_THAT(ids, testing::ElementsAre("日本語 0", "日本語 3", "N 0 3", "é,ü;\"q\" 0", "N 0 0"));
}

}  // namespace
}  // namespace nestrec
