#include "base/svg_chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace nestrec {
namespace {

constexpr double kWidth = 720, kHeight = 420;
constexpr double kLeft = 70, kRight = 20, kTop = 44, kBottom = 58;
// Okabe and Ito's colours, which people with any colour vision can tell apart.
constexpr std::array<const char*, 7> kColours = {"#0072B2", "#D55E00", "#009E73", "#CC79A7",
                                                 "#E69F00", "#56B4E9", "#000000"};

std::string Escape(const std::string& text) {
  return absl::StrReplaceAll(text,
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string Text(double x, double y, const std::string& anchor, const std::string& text,
                 const std::string& extra = "") {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>%s</text>\n", x, y,
                         anchor, extra, Escape(text));
}

// 1, 2 or 5 times a power of ten, so that about five steps cover the range.
double TickStep(double range) {
  const double raw = range / 5;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw) return factor * power;
  }
  return 10 * power;
}

// 1, 2 and 5 times the powers of ten from low to high.
std::vector<double> LogTicks(double low, double high) {
  std::vector<double> ticks;
  for (double power = std::pow(10.0, std::floor(std::log10(low))); power <= high; power *= 10) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor * power >= low && factor * power <= high) ticks.push_back(factor * power);
    }
  }
  return ticks;
}

struct Axis {
  double low, high, pixel_low, pixel_high;
  bool log;
  double Scale(double v) const { return log ? std::log2(v) : v; }
  double Pixel(double v) const {
    const double span = Scale(high) - Scale(low);
    const double share = span > 0 ? (Scale(v) - Scale(low)) / span : 0.5;
    return pixel_low + share * (pixel_high - pixel_low);
  }
};

}  // namespace

std::string RenderSvg(const Chart& chart) {
  const bool log_x = chart.log2_x || chart.log10_x;
  std::set<double> xs;
  double y_max = 0, y_min = 0;
  for (const ChartSeries& series : chart.series) {
    for (const auto& [x, y] : series.points) {
      if (!std::isfinite(x) || !std::isfinite(y) || (log_x && x <= 0)) continue;
      xs.insert(x);
      y_max = std::max(y_max, y);
      y_min = std::min(y_min, y);
    }
  }
  if (xs.empty()) xs = {1, 2};
  if (y_max == y_min) y_max = y_min + 1;
  const double step = TickStep(y_max - y_min);
  const Axis x_axis{*xs.begin(), *xs.rbegin(), kLeft, kWidth - kRight, log_x};
  const Axis y_axis{std::floor(y_min / step) * step, std::ceil(y_max / step) * step,
                    kHeight - kBottom, kTop, false};

  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" "
      "font-family=\"sans-serif\" font-size=\"13\">\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
      kWidth, kHeight);
  absl::StrAppend(
      &svg, Text(kWidth / 2, 22, "middle", chart.title, " font-size=\"15\" font-weight=\"bold\""));
  for (double y = y_axis.low; y <= y_axis.high + step / 2; y += step) {
    const double pixel = y_axis.Pixel(y);
    absl::StrAppendFormat(
        &svg, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", kLeft,
        kWidth - kRight, pixel, pixel);
    absl::StrAppend(&svg, Text(kLeft - 8, pixel + 4, "end", absl::StrFormat("%.4g", y)));
  }
  if (chart.log2_x) {
    for (const double x : xs)
      absl::StrAppend(&svg, Text(x_axis.Pixel(x), kHeight - kBottom + 20, "middle",
                                 absl::StrFormat("%.6g", x)));
  } else if (chart.log10_x) {
    for (const double x : LogTicks(x_axis.low, x_axis.high)) {
      absl::StrAppend(&svg, Text(x_axis.Pixel(x), kHeight - kBottom + 20, "middle",
                                 absl::StrFormat("%.6g", x)));
    }
  } else {
    const double x_step = TickStep(std::max(x_axis.high - x_axis.low, 1e-9));
    for (double x = std::ceil(x_axis.low / x_step) * x_step; x <= x_axis.high; x += x_step) {
      absl::StrAppend(&svg, Text(x_axis.Pixel(x), kHeight - kBottom + 20, "middle",
                                 absl::StrFormat("%.6g", x)));
    }
  }
  absl::StrAppend(&svg, Text((kLeft + kWidth - kRight) / 2, kHeight - 14, "middle", chart.x_label));
  absl::StrAppend(&svg, Text(18, (kTop + kHeight - kBottom) / 2, "middle", chart.y_label,
                             absl::StrFormat(" transform=\"rotate(-90 18 %.1f)\"",
                                             (kTop + kHeight - kBottom) / 2)));
  for (size_t s = 0; s < chart.series.size(); ++s) {
    const char* colour = kColours[s % kColours.size()];
    std::string path;
    std::string dots;
    for (const auto& [x, y] : chart.series[s].points) {
      if (!std::isfinite(x) || !std::isfinite(y) || (log_x && x <= 0)) continue;
      absl::StrAppendFormat(&path, "%s%.1f %.1f", path.empty() ? "M" : " L", x_axis.Pixel(x),
                            y_axis.Pixel(y));
      absl::StrAppendFormat(&dots,
                            "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\"><title>%.6g: "
                            "%.6g</title></circle>\n",
                            x_axis.Pixel(x), y_axis.Pixel(y), colour, x, y);
    }
    absl::StrAppendFormat(&svg,
                          "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>\n%s",
                          path, colour, dots);
    const double legend = kTop + 8 + 18 * static_cast<double>(s);
    absl::StrAppendFormat(&svg,
                          "<rect x=\"%.1f\" y=\"%.1f\" width=\"12\" height=\"4\" fill=\"%s\"/>\n",
                          kLeft + 12, legend - 6, colour);
    absl::StrAppend(&svg, Text(kLeft + 30, legend, "start", chart.series[s].label));
  }
  return svg + "</svg>\n";
}

}  // namespace nestrec
