#include "server/load/load_report.h"

#include <gtest/gtest.h>

namespace nestrec {
namespace {

TEST(LoadReport, GoodputIsAnswersInTimePerSecond) {
  LoadReport report{.duration = absl::Seconds(2), .within = absl::Milliseconds(50)};
  for (int i = 0; i < 60; ++i) report.CountAnswer(absl::Milliseconds(10), 64);
  for (int i = 0; i < 20; ++i) report.CountAnswer(absl::Milliseconds(80), 32);
  for (int i = 0; i < 15; ++i) report.CountError(absl::ResourceExhaustedError("full"));
  report.CountError(absl::UnavailableError("gone"));
  report.not_sent = 4;
  EXPECT_EQ(report.failed(), 16);
  EXPECT_EQ(report.due(), 100);
  EXPECT_DOUBLE_EQ(report.offered_rate(), 50);
  EXPECT_DOUBLE_EQ(report.goodput(), 30);
  EXPECT_EQ(report.dims, (std::map<int, int64_t>{{32, 20}, {64, 60}}));
  EXPECT_EQ(report.errors.at(absl::StatusCode::kResourceExhausted).count, 15);
  EXPECT_EQ(report.errors.at(absl::StatusCode::kResourceExhausted).example, "full");
}

}  // namespace
}  // namespace nestrec
