// Line charts as SVG text, for results that a person looks at: no dependencies, no scripts, any
// browser shows them.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace nestrec {

struct ChartSeries {
  std::string label;
  std::vector<std::pair<double, double>> points;  // (x, y), x ascending
};

struct Chart {
  std::string title;
  std::string x_label;
  std::string y_label;
  bool log2_x = false;   // a logarithmic x axis with a tick at every point
  bool log10_x = false;  // one with ticks at 1, 2 and 5 times powers of ten
  std::vector<ChartSeries> series;
};

// A complete SVG document. Text is escaped; points that are not finite are left out.
std::string RenderSvg(const Chart& chart);

}  // namespace nestrec
