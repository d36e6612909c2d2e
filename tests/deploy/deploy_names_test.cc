// Alerts and the board name only metrics that a live server has, and link to paragraphs that are
// there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/file.h"
#include "tests/server/serve_program.h"

namespace nestrec {
namespace {

using ::testing::Contains;

std::string SourceFile(const std::string& path) {
  const auto text = ReadFile(absl::StrCat(NESTREC_SOURCE_DIR, "/", path));
  EXPECT_TRUE(text.ok()) << text.status();
  return text.value_or("");
}

// Whatever looks like one of our metrics.
std::set<std::string> MetricsIn(const std::string& text) {
  static const std::regex* const name =
      new std::regex("\\b(nestrec|grpc_server|process)_[a-z_]+\\b");
  std::set<std::string> names;
  for (std::sregex_iterator match(text.begin(), text.end(), *name), end; match != end; ++match) {
    names.insert(match->str());
  }
  return names;
}

void ExpectAllLive(const std::set<std::string>& names,
                   const std::map<std::string, ServeProgram::MetricFamily>& live,
                   const std::string& where) {
  EXPECT_GT(names.size(), 10u);
  for (const std::string& name : names) {
    std::string base = name;
    for (const char* suffix : {"_bucket", "_sum", "_count"}) {
      const auto found = live.find(std::string(absl::StripSuffix(name, suffix)));
      if (absl::EndsWith(name, suffix) && found != live.end() &&
          found->second.kind == "histogram") {
        base = found->first;
      }
    }
    EXPECT_TRUE(live.contains(base)) << where << " names " << name << ", which /metrics has not";
  }
}

TEST(Deploy, AlertsAndBoardNameOnlyMetricsThatAreThere) {
  const TempFolder folder;
  ServeProgram program(
      {.program = NESTREC_PROGRAM,
       .more = {"--request-log", folder.File("requests.jsonl"), "--quality-share", "1"},
       .shadow = true});
  ASSERT_TRUE(program.Start().ok());
  // What is counted per call is there from the first one on.
  ASSERT_TRUE(program.Client().Recommend({}).ok());
  std::map<std::string, ServeProgram::MetricFamily> live;
  // Comparisons are made off the calls' path.
  for (const absl::Time end = absl::Now() + absl::Minutes(1);
       !(live.contains("nestrec_shadow_overlap") && live.contains("nestrec_quality_overlap")) &&
       absl::Now() < end;) {
    live = program.MetricFamilies();
  }
  ExpectAllLive(MetricsIn(SourceFile("deploy/prometheus/nestrec.rules.yml")), live, "an alert");
  std::string expressions;
  const auto board = nlohmann::json::parse(SourceFile("deploy/grafana/nestrec.json"));
  for (const auto& panel : board["panels"]) {
    if (!panel.contains("targets")) continue;
    for (const auto& target : panel["targets"]) {
      absl::StrAppend(&expressions, target["expr"].get<std::string>(), "\n");
    }
  }
  for (const auto& variable : board["templating"]["list"]) {
    if (variable["query"].is_object()) {
      absl::StrAppend(&expressions, variable["query"]["query"].get<std::string>(), "\n");
    }
  }
  ExpectAllLive(MetricsIn(expressions), live, "the board");
}

TEST(Deploy, EveryAlertHasItsParagraph) {
  std::vector<std::string> headings;
  for (const absl::string_view line : absl::StrSplit(SourceFile("docs/operations.md"), '\n')) {
    if (absl::StartsWith(line, "### ")) {
      headings.push_back(absl::AsciiStrToLower(absl::StripPrefix(line, "### ")));
    }
  }
  std::string alert;
  int alerts = 0;
  for (const absl::string_view line :
       absl::StrSplit(SourceFile("deploy/prometheus/nestrec.rules.yml"), '\n')) {
    absl::string_view text = absl::StripAsciiWhitespace(line);
    if (absl::ConsumePrefix(&text, "- alert: ")) {
      alert = std::string(text);
      ++alerts;
    } else if (absl::ConsumePrefix(&text, "runbook_url: ")) {
      const std::string anchor = absl::AsciiStrToLower(alert);
      EXPECT_EQ(text, absl::StrCat("docs/operations.md#", anchor));
      EXPECT_THAT(headings, Contains(anchor));
      alert = "";
    }
  }
  EXPECT_GE(alerts, 12);
  EXPECT_EQ(alert, "") << "has no runbook_url";
}

TEST(Deploy, TheBoardsPanelsAreWhole) {
  const auto board = nlohmann::json::parse(SourceFile("deploy/grafana/nestrec.json"));
  std::set<int> ids;
  for (const auto& panel : board["panels"]) {
    EXPECT_TRUE(ids.insert(panel["id"].get<int>()).second) << panel["title"];
    const auto& place = panel["gridPos"];
    EXPECT_LE(place["x"].get<int>() + place["w"].get<int>(), 24) << panel["title"];
    if (panel["type"] != "row") {
      EXPECT_FALSE(panel["targets"].empty()) << panel["title"];
    }
  }
  EXPECT_GT(ids.size(), 20u);
}

}  // namespace
}  // namespace nestrec
