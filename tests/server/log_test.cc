#include "server/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "server/log_limiter.h"

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

TEST(Log, WritesJsonWithNumbersAsNumbers) {
  std::string written;
  Log([&](absl::string_view line) { written = std::string(line); }, {.format = LogFormat::kJson})
      .Warning("event", {{"dim", 64},
                         {"share", 0.5},
                         {"exact", true},
                         {"nan", std::nan("")},
                         {"text", "64"},
                         {"quotes", "a\"b\nc"}});
  const auto json = nlohmann::json::parse(written);
  EXPECT_EQ(json["level"], "warning");
  EXPECT_EQ(json["event"], "event");
  EXPECT_EQ(json["dim"], 64);
  EXPECT_EQ(json["share"], 0.5);
  EXPECT_EQ(json["exact"], true);
  EXPECT_TRUE(json["nan"].is_string());
  EXPECT_EQ(json["text"], "64");
  EXPECT_EQ(json["quotes"], "a\"b\nc");
  EXPECT_THAT(json["time"].get<std::string>(), MatchesRegex("....-..-..T..:..:......Z"));
}

TEST(Log, LeavesOutWhatIsBelowItsLevel) {
  int lines = 0;
  const Log log([&](absl::string_view) { ++lines; }, {.level = LogLevel::kWarning});
  log.Debug("a");
  log.Info("b");
  EXPECT_EQ(lines, 0);
  log.Warning("c");
  log.Error("d");
  EXPECT_EQ(lines, 2);
  EXPECT_FALSE(log.Writes(LogLevel::kInfo));
}

TEST(LogLimiter, LetsABurstPassThenSoManyASecondAndCountsTheRest) {
  LogLimiter limiter(3, 2);
  const auto at = [](int milliseconds) {
    return Instant(std::chrono::hours(1) + std::chrono::milliseconds(milliseconds));
  };
  for (int i = 0; i < 3; ++i) EXPECT_EQ(limiter.Admit(at(0)), 0);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(limiter.Admit(at(400)), std::nullopt);
  EXPECT_EQ(limiter.Admit(at(500)), 5);
  EXPECT_EQ(limiter.Admit(at(600)), std::nullopt);
  EXPECT_EQ(limiter.Admit(at(1000)), 1);
  // However long it was quiet, there is no more than a burst.
  for (int i = 0; i < 3; ++i) EXPECT_EQ(limiter.Admit(at(1'000'000)), 0);
  EXPECT_EQ(limiter.Admit(at(1'000'000)), std::nullopt);
  // A thread that read its clock earlier does not turn it back.
  EXPECT_EQ(limiter.Admit(at(5)), std::nullopt);
}

}  // namespace
}  // namespace nestrec
