// Metrics as a table for people.
#pragma once

#include <string>
#include <vector>

#include "model/metrics.h"

namespace nestrec {

struct MetricsRow {
  std::string label;
  RankingMetrics metrics;
};

// A header line and one line per row; `what` heads the first column.
std::string FormatMetricsTable(const std::string& what, const std::vector<MetricsRow>& rows);

// One row per size, labelled by its dim.
std::vector<MetricsRow> RowsOf(const std::vector<SizeMetrics>& sizes);

}  // namespace nestrec
