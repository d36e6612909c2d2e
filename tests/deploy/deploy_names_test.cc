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

using Families = std::map<std::string, ServeProgram::MetricFamily>;

// Of a metric as expressions name it, which is a histogram's family for its _bucket, _sum, _count.
const ServeProgram::MetricFamily* FamilyOf(const std::string& name, const Families& live) {
  for (const char* suffix : {"", "_bucket", "_sum", "_count"}) {
    if (!absl::EndsWith(name, suffix)) continue;
    const auto found = live.find(std::string(absl::StripSuffix(name, suffix)));
    if (found != live.end()) return &found->second;
  }
  return nullptr;
}

// All that the pattern's first group matches, and in each of them every label's name.
std::vector<std::set<std::string>> LabelSets(const std::string& text, const std::string& pattern) {
  static const std::regex* const name = new std::regex("[a-z_]+(?=\\s*(=|!=|,|$))");
  std::vector<std::set<std::string>> sets;
  const std::regex whole(pattern);
  for (std::sregex_iterator match(text.begin(), text.end(), whole), end; match != end; ++match) {
    // Without the values, which hold commas and names.
    const std::string group = std::regex_replace(match->str(1), std::regex("\"[^\"]*\""), "");
    std::set<std::string>& labels = sets.emplace_back();
    for (std::sregex_iterator each(group.begin(), group.end(), *name); each != end; ++each) {
      labels.insert(each->str());
    }
  }
  return sets;
}

// Labels that an expression selects and groups by, and that its texts show, are those of the
// metrics in it, or those that Prometheus and the ServiceMonitor give.
void ExpectLabelsLive(const std::string& expression, const std::string& texts, const Families& live,
                      const std::string& where) {
  std::set<std::string> known = {"namespace", "job", "service", "instance", "le"};
  for (const std::string& name : MetricsIn(expression)) {
    const ServeProgram::MetricFamily* family = FamilyOf(name, live);
    ASSERT_NE(family, nullptr) << where << ": " << name;
    known.insert(family->labels.begin(), family->labels.end());
    std::set<std::string> own = family->labels;
    own.insert({"job", "instance"});
    if (family->kind == "histogram") own.insert("le");
    for (const auto& labels : LabelSets(expression, absl::StrCat(name, "\\{([^}]*)\\}"))) {
      for (const std::string& label : labels) {
        EXPECT_TRUE(own.contains(label)) << where << " asks " << name << " for " << label;
      }
    }
  }
  for (const auto& labels : LabelSets(expression, "\\bby \\(([^)]*)\\)")) {
    EXPECT_FALSE(labels.empty()) << where;
    for (const std::string& label : labels) {
      EXPECT_TRUE(known.contains(label)) << where << " groups by " << label;
    }
  }
  // An alert shows $labels.tier, the board {{tier}}.
  for (const auto& labels :
       LabelSets(texts, "(?:\\$labels\\.|\\{\\{\\s*(?=[a-z_]+\\s*\\}\\}))([a-z_]+)")) {
    for (const std::string& label : labels) {
      EXPECT_TRUE(known.contains(label)) << where << " shows " << label;
    }
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
  for (const absl::string_view rule :
       absl::StrSplit(SourceFile("deploy/prometheus/nestrec.rules.yml"), "- alert: ")) {
    const std::pair<std::string, std::string> expression_and_texts =
        absl::StrSplit(rule, absl::MaxSplits("annotations:", 1));
    ExpectLabelsLive(expression_and_texts.first, expression_and_texts.second, live,
                     expression_and_texts.first.substr(0, rule.find('\n')));
  }
  std::string expressions;
  const auto board = nlohmann::json::parse(SourceFile("deploy/grafana/nestrec.json"));
  for (const auto& panel : board["panels"]) {
    if (!panel.contains("targets")) continue;
    for (const auto& target : panel["targets"]) {
      const std::string expression = target["expr"];
      absl::StrAppend(&expressions, expression, "\n");
      ExpectLabelsLive(expression, target.value("legendFormat", ""), live, panel["title"]);
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
