#include "cli/metrics_table.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace nestrec {

std::string FormatMetricsTable(const std::string& what, const std::vector<MetricsRow>& rows) {
  size_t width = what.size();
  for (const MetricsRow& row : rows) width = std::max(width, row.label.size());
  const int label_width = static_cast<int>(width);
  std::string table = absl::StrFormat("%*s", label_width, what);
  for (const char* metric : {"R", "N", "M"}) {
    for (const int cutoff : kMetricCutoffs)
      absl::StrAppendFormat(&table, "  %6s", absl::StrCat(metric, "@", cutoff));
  }
  table += "\n";
  for (const MetricsRow& row : rows) {
    absl::StrAppendFormat(&table, "%*s", label_width, row.label);
    for (const auto* values : {&row.metrics.recall, &row.metrics.ndcg, &row.metrics.mrr}) {
      for (const double value : *values) absl::StrAppendFormat(&table, "  %.4f", value);
    }
    table += "\n";
  }
  return table;
}

std::vector<MetricsRow> RowsOf(const std::vector<SizeMetrics>& sizes) {
  std::vector<MetricsRow> rows;
  for (const SizeMetrics& size : sizes) rows.push_back({absl::StrCat(size.dim), size.metrics});
  return rows;
}

}  // namespace nestrec
