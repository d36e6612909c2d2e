#include "cli/diagnosis_table.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/printable.h"

namespace nestrec {
namespace {

constexpr size_t kCutoff = 1;
static_assert(kMetricCutoffs[kCutoff] == 10);

struct Part {
  const char* name;   // in JSON
  const char* title;  // in the table
  const std::vector<DiagnosisRow>* rows;
};

std::vector<Part> PartsOf(const DiagnosisReport& report) {
  return {{"history length", "items in history", &report.by_history_length},
          {"target popularity", "target's training events", &report.by_popularity},
          {"variation", "with one thing changed", &report.variations}};
}

double Share(const DiagnosisReport& report, const DiagnosisRow& row) {
  return static_cast<double>(row.users) / static_cast<double>(report.whole.users);
}

std::string RatioText(double value, double whole) {
  return whole > 0 ? absl::StrFormat("%.2f", value / whole) : "-";
}

nlohmann::ordered_json RatioJson(double value, double whole) {
  return whole > 0 ? nlohmann::ordered_json(std::round(value / whole * 1e4) / 1e4)
                   : nlohmann::ordered_json();
}

double Rounded(double value) { return std::round(value * 1e6) / 1e6; }

void AppendRow(const DiagnosisReport& report, const DiagnosisRow& row, int label_width,
               std::string& table) {
  absl::StrAppendFormat(&table, "%-*s  %6d  %5.1f%%", label_width, Printable(row.label), row.users,
                        100 * Share(report, row));
  for (size_t size = 0; size < report.dims.size(); ++size) {
    const RankingMetrics& metrics = row.metrics[size];
    const RankingMetrics& whole = report.whole.metrics[size];
    absl::StrAppendFormat(&table, "  %.4f %5s  %.4f %5s", metrics.recall[kCutoff],
                          RatioText(metrics.recall[kCutoff], whole.recall[kCutoff]),
                          metrics.ndcg[kCutoff],
                          RatioText(metrics.ndcg[kCutoff], whole.ndcg[kCutoff]));
  }
  table += "\n";
}

}  // namespace

std::string FormatDiagnosis(const DiagnosisReport& report) {
  size_t longest = 0;
  for (const Part& part : PartsOf(report)) {
    longest = std::max(longest, absl::string_view(part.title).size());
    for (const DiagnosisRow& row : *part.rows)
      longest = std::max(longest, Printable(row.label).size());
  }
  const int label_width = static_cast<int>(longest);
  std::string table =
      "where it comes from: Recall@10 (R:dim) and NDCG@10 (N:dim), with their ratios to those of "
      "all "
      "users, nothing changed\n";
  for (const Part& part : PartsOf(report)) {
    absl::StrAppendFormat(&table, "\n%-*s  %6s  %6s", label_width, part.title, "users", "share");
    for (const int dim : report.dims) {
      absl::StrAppendFormat(&table, "  %6s %5s  %6s %5s", absl::StrCat("R:", dim), "ratio",
                            absl::StrCat("N:", dim), "ratio");
    }
    table += "\n";
    for (const DiagnosisRow& row : *part.rows) AppendRow(report, row, label_width, table);
    AppendRow(report, report.whole, label_width, table);
  }
  if (!report.note.empty()) absl::StrAppend(&table, "\n", Printable(report.note), "\n");
  return table;
}

std::string DiagnosisJsonLines(const DiagnosisReport& report, absl::string_view split) {
  std::string lines;
  for (const Part& part : PartsOf(report)) {
    for (const DiagnosisRow& row : *part.rows) {
      for (size_t size = 0; size < report.dims.size(); ++size) {
        const RankingMetrics& metrics = row.metrics[size];
        const RankingMetrics& whole = report.whole.metrics[size];
        nlohmann::ordered_json json;
        json["scorer"] = "model";
        json["split"] = std::string(split);
        json["masked"] = "padding";
        json["diagnosis"] = part.name;
        json["slice"] = row.label;
        json["dim"] = report.dims[size];
        json["users"] = row.users;
        json["share"] = Rounded(Share(report, row));
        json["recall@10"] = Rounded(metrics.recall[kCutoff]);
        json["ndcg@10"] = Rounded(metrics.ndcg[kCutoff]);
        json["recall@10_ratio"] = RatioJson(metrics.recall[kCutoff], whole.recall[kCutoff]);
        json["ndcg@10_ratio"] = RatioJson(metrics.ndcg[kCutoff], whole.ndcg[kCutoff]);
        absl::StrAppend(&lines, json.dump(), "\n");
      }
    }
  }
  if (!report.note.empty()) {
    const nlohmann::ordered_json json = {{"diagnosis", "note"}, {"note", report.note}};
    absl::StrAppend(&lines, json.dump(), "\n");
  }
  return lines;
}

}  // namespace nestrec
