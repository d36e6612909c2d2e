#include "index/cpu_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nestrec {
namespace {

using ::testing::HasSubstr;

TEST(CpuCheck, ThisMachineRunsTheFaissItWasBuiltWith) {
  EXPECT_TRUE(CheckCpu().ok()) << CheckCpu();
}

TEST(CpuCheck, AGenericBuildRunsEverywhere) {
  EXPECT_TRUE(CheckCpu("generic", CpuFeatures{}).ok());
}

TEST(CpuCheck, NamesTheMissingInstructionSetAndTheCure) {
  const absl::Status status = CheckCpu("avx2", CpuFeatures{});
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("avx2"));
  EXPECT_THAT(status.message(), HasSubstr("NESTREC_FAISS=system"));
}

TEST(CpuCheck, Avx512NeedsMoreThanAvx2) {
  EXPECT_FALSE(CheckCpu("avx512", CpuFeatures{.avx2 = true}).ok());
  EXPECT_TRUE(CheckCpu("avx512", CpuFeatures{.avx2 = true, .avx512 = true}).ok());
}

}  // namespace
}  // namespace nestrec
