// Every target on its corpus: the seeds (make_corpus.sh), and what once crashed.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/random.h"
#include "tests/fuzz/targets.h"

namespace nestrec {
namespace {

struct Target {
  std::string folder;
  void (*run)(absl::string_view);
};

class Replay : public testing::TestWithParam<Target> {
 protected:
  // By name, so that every run is the same.
  static std::vector<std::string> Seeds() {
    std::vector<std::string> paths;
    for (const auto& entry : std::filesystem::directory_iterator(
             absl::StrCat(NESTREC_SOURCE_DIR, "/tests/fuzz/corpus/", GetParam().folder))) {
      paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    std::vector<std::string> seeds;
    for (const std::string& path : paths) seeds.push_back(*ReadFile(path));
    return seeds;
  }
};

TEST_P(Replay, TheSeedsDoNoHarm) {
  const std::vector<std::string> seeds = Seeds();
  ASSERT_FALSE(seeds.empty());
  for (const std::string& seed : seeds) GetParam().run(seed);
  GetParam().run("");
}

TEST_P(Replay, CutAndFlippedSeedsDoNoHarm) {
  Random random(1);
  const std::vector<std::string> seeds = Seeds();
  for (int round = 0; round < 500; ++round) {
    std::string bytes = seeds[static_cast<size_t>(random.Index(std::ssize(seeds)))];
    if (bytes.empty()) continue;
    for (int64_t flips = random.Index(4); flips >= 0; --flips) {
      bytes[static_cast<size_t>(random.Index(std::ssize(bytes)))] =
          static_cast<char>(random.Index(256));
    }
    if (round % 3 == 0) bytes.resize(static_cast<size_t>(random.Index(std::ssize(bytes))));
    GetParam().run(bytes);
  }
}

INSTANTIATE_TEST_SUITE_P(
    AllTargets, Replay,
    testing::Values(Target{"request", FuzzRequest}, Target{"server_config", FuzzServerConfig},
                    Target{"checkpoint", FuzzCheckpoint}, Target{"index_file", FuzzIndexFile},
                    Target{"session_files", FuzzSessionFiles}, Target{"data_files", FuzzDataFiles}),
    [](const testing::TestParamInfo<Target>& info) { return info.param.folder; });

}  // namespace
}  // namespace nestrec
