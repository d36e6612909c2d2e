#include "base/progress_bar.h"

#include <gtest/gtest.h>

namespace nestrec {
namespace {

TEST(ProgressBar, FormatsClocks) {
  EXPECT_EQ(FormatClock(absl::Seconds(42)), "00:42");
  EXPECT_EQ(FormatClock(absl::Seconds(12 * 60 + 5)), "12:05");
  EXPECT_EQ(FormatClock(absl::Seconds(3 * 3600 + 7 * 60 + 55)), "3:07:55");
  EXPECT_EQ(FormatClock(absl::Seconds(-3)), "00:00");
}

TEST(ProgressBar, PrintsNothingIntoAFile) {
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  {
    ProgressBar bar(file);
    bar.Start("epoch 1", 10);
    bar.Update(5, "loss 1");
    bar.Update(10, "loss 1");
  }
  EXPECT_EQ(std::ftell(file), 0);
  std::fclose(file);
}

}  // namespace
}  // namespace nestrec
