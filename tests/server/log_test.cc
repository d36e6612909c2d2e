#include "server/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nestrec {
namespace {

using ::testing::MatchesRegex;

std::string OneLine(const std::vector<LogField>& fields) {
  std::string written;
  Log([&](absl::string_view line) { written = std::string(line); }).Info("event", fields);
  return written;
}

TEST(Log, WritesTimeLevelEventAndFields) {
  EXPECT_THAT(OneLine({{"dim", 64}, {"name", "beauty"}}),
              MatchesRegex("....-..-..T..:..:......Z info event dim=64 name=beauty"));
}

TEST(Log, QuotesWhatWouldBreakTheLine) {
  EXPECT_THAT(OneLine({{"a", "two words"}, {"b", ""}, {"c", "x\ny"}, {"d", "品目"}}),
              MatchesRegex(".* event a=\"two words\" b=\"\" c=\"x\\\\ny\" d=品目"));
  EXPECT_THAT(OneLine({{"path", "caf\xe9"}}), MatchesRegex(".* path=\"caf\\\\xe9\""));
}

}  // namespace
}  // namespace nestrec
