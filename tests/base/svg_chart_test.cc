#include "base/svg_chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace nestrec {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(SvgChart, DrawsEveryPointAndEscapesText) {
  const std::string svg = RenderSvg({.title = "a < b & c",
                                     .x_label = "dim",
                                     .y_label = "Recall@10",
                                     .log2_x = true,
                                     .series = {{"model", {{8, 0.01}, {64, 0.05}, {1024, 0.08}}}}});
  EXPECT_THAT(svg, HasSubstr("a &lt; b &amp; c"));
  EXPECT_THAT(svg, HasSubstr("<title>64: 0.05</title>"));
  EXPECT_THAT(svg, HasSubstr(">1024</text>"));
  EXPECT_THAT(svg, HasSubstr("</svg>"));
}

TEST(SvgChart, MarksPowersOfTenOnALogarithmicAxis) {
  const std::string svg =
      RenderSvg({.log10_x = true, .series = {{"x", {{90, 1}, {100.5, 2}, {3000, 3}, {5500, 4}}}}});
  for (const char* tick : {">100<", ">200<", ">500<", ">1000<", ">2000<", ">5000<"}) {
    EXPECT_THAT(svg, HasSubstr(tick));
  }
  EXPECT_THAT(svg, Not(HasSubstr(">10000<")));
  EXPECT_THAT(svg, Not(HasSubstr(">50<")));
}

TEST(SvgChart, SurvivesEmptyAndImpossibleData) {
  EXPECT_THAT(RenderSvg({}), HasSubstr("</svg>"));
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::string svg =
      RenderSvg({.log2_x = true, .series = {{"x", {{0, 1}, {8, nan}, {8, 0}}}}});
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace nestrec
