// Every target on its corpus: the seeds (make_corpus.sh), and what once crashed.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/random.h"
#include "tests/fuzz/targets.h"

namespace nestrec {
namespace {

class Replay : public testing::TestWithParam<FuzzTarget> {};

TEST_P(Replay, TheSeedsDoNoHarm) {
  const std::vector<std::string> seeds = SeedsOf(GetParam());
  for (const std::string& seed : seeds) GetParam().run(seed);
  GetParam().run("");
}

TEST_P(Replay, CutAndFlippedSeedsDoNoHarm) {
  Random random(1);
  const std::vector<std::string> seeds = SeedsOf(GetParam());
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

INSTANTIATE_TEST_SUITE_P(AllTargets, Replay, testing::ValuesIn(AllFuzzTargets()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace nestrec
