#include "server/call_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nestrec {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kMessage = 16 * kMiB;

MemoryLimit Limit(int64_t mib, bool counts_mappings = false) {
  return {.name = "a limit",
          .limit_bytes = static_cast<uint64_t>(mib * kMiB),
          .left_bytes = 0,
          .counts_mappings = counts_mappings};
}

TEST(CallMemory, AutoIsAnEighthOfTheSmallestLimitWithinBounds) {
  EXPECT_EQ(CallMemoryOf("auto", kMessage, {}).value(), 256 * kMiB);
  EXPECT_EQ(CallMemoryOf("auto", kMessage, {Limit(64 * 1024), Limit(800)}).value(), 100 * kMiB);
  EXPECT_EQ(CallMemoryOf("auto", kMessage, {Limit(100)}).value(), 32 * kMiB);
  EXPECT_EQ(CallMemoryOf("auto", kMessage, {Limit(int64_t{1} << 40)}).value(), 256 * kMiB);
}

TEST(CallMemory, LimitsOfAddressesAreNoMeasure) {
  EXPECT_EQ(CallMemoryOf("auto", kMessage, {Limit(800, true)}).value(), 256 * kMiB);
}

TEST(CallMemory, TwoMessagesFitInAnyCase) {
  EXPECT_EQ(CallMemoryOf("auto", 200 * kMiB, {Limit(800)}).value(), 400 * kMiB);
  EXPECT_THAT(std::string(CallMemoryOf("100000000", 60 * kMiB, {}).status().message()),
              HasSubstr("100000000 bytes are less than 125829120, which is two of "
                        "--max-message-bytes"));
}

TEST(CallMemory, ANumberIsTakenAndWhatIsNoneRefused) {
  EXPECT_EQ(CallMemoryOf("1000000000", kMessage, {Limit(800)}).value(), 1'000'000'000);
  for (const char* text : {"", "256M", "1e9", "-5", "33554431"}) {
    const auto bytes = CallMemoryOf(text, kMessage, {});
    EXPECT_TRUE(absl::IsInvalidArgument(bytes.status())) << text;
    EXPECT_THAT(std::string(bytes.status().message()), HasSubstr("--max-call-memory: ")) << text;
  }
}

}  // namespace
}  // namespace nestrec
