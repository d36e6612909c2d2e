#include "base/memory_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kMiB = uint64_t{1} << 20;

class MemoryLimitsTest : public ::testing::Test {
 protected:
  // A file of the pretended machine.
  void Put(const std::string& path, const std::string& text) {
    const std::string whole = folder_.path() + path;
    std::filesystem::create_directories(std::filesystem::path(whole).parent_path());
    ASSERT_TRUE(WriteFileAtomically(whole, text).ok());
  }
  std::vector<MemoryLimit> Limits() const { return ReadMemoryLimits(folder_.path()); }

  const TempFolder folder_;
};

TEST_F(MemoryLimitsTest, AMachineThatSaysNothingSetsNoLimit) {
  EXPECT_THAT(Limits(), IsEmpty());
  EXPECT_EQ(AnonymousBytes(folder_.path()), 0u);
}

TEST_F(MemoryLimitsTest, PagesThatCanBeReadAgainAreLeftOfAControlGroup) {
  Put("/proc/self/cgroup", "0::/\n");
  Put("/sys/fs/cgroup/memory.max", "104857600\n");
  Put("/sys/fs/cgroup/memory.current", "94371840\n");
  Put("/sys/fs/cgroup/memory.stat",
      "anon 31457280\nfile 62914560\ninactive_file 41943040\nactive_file 20971520\n");
  EXPECT_THAT(Limits(), ElementsAre(MemoryLimit{
                            .name = "the control group's limit (/sys/fs/cgroup/memory.max)",
                            .limit_bytes = 100 * kMiB,
                            .left_bytes = 70 * kMiB}));
}

TEST_F(MemoryLimitsTest, GroupsAboveCountAndGroupsWithoutALimitDoNot) {
  Put("/proc/self/cgroup", "0::/shop/pod/container\n");
  Put("/sys/fs/cgroup/shop/pod/container/memory.max", "max\n");
  Put("/sys/fs/cgroup/shop/pod/memory.max", "1048576\n");
  Put("/sys/fs/cgroup/shop/pod/memory.current", "2097152\n");  // over it, for a moment
  Put("/sys/fs/cgroup/shop/memory.max", "3145728\n");
  EXPECT_THAT(
      Limits(),
      ElementsAre(
          MemoryLimit{.name = "the control group's limit (/sys/fs/cgroup/shop/pod/memory.max)",
                      .limit_bytes = kMiB,
                      .left_bytes = 0},
          MemoryLimit{.name = "the control group's limit (/sys/fs/cgroup/shop/memory.max)",
                      .limit_bytes = 3 * kMiB,
                      .left_bytes = 3 * kMiB}));
}

// As in a container that sees its own group at the mount, under the path that the host knows it by.
TEST_F(MemoryLimitsTest, ReadsTheFirstVersionOfControlGroupsToo) {
  Put("/proc/self/cgroup", "12:pids:/x\n7:cpu,memory:/docker/0123\n1:name=systemd:/\n0::/\n");
  Put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "10485760\n");
  Put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "8388608\n");
  Put("/sys/fs/cgroup/memory/memory.stat", "total_inactive_file 1048576\ntotal_active_file 0\n");
  EXPECT_THAT(Limits(),
              ElementsAre(MemoryLimit{
                  .name = "the control group's limit (/sys/fs/cgroup/memory/memory.limit_in_bytes)",
                  .limit_bytes = 10 * kMiB,
                  .left_bytes = 3 * kMiB}));
  Put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_THAT(Limits(), IsEmpty());
}

TEST_F(MemoryLimitsTest, ReadsTheProcesssLimitsAndTheMachine) {
  Put("/proc/self/limits",
      "Limit                     Soft Limit           Hard Limit           Units     \n"
      "Max data size             2097152              unlimited            bytes     \n"
      "Max address space         4194304              8388608              bytes     \n");
  Put("/proc/self/status",
      "Name:\tx\nVmSize:\t    1024 kB\nRssAnon:\t 5 kB\nVmData:\t    4096 kB\n");
  Put("/proc/meminfo", "MemTotal:       2048 kB\nMemFree:         1 kB\nMemAvailable:   1024 kB\n");
  EXPECT_THAT(Limits(),
              ElementsAre(MemoryLimit{.name = "the process's limit of address space (ulimit -v)",
                                      .limit_bytes = 4 * kMiB,
                                      .left_bytes = 3 * kMiB,
                                      .counts_mappings = true},
                          MemoryLimit{.name = "the process's limit of data (ulimit -d)",
                                      .limit_bytes = 2 * kMiB,
                                      .left_bytes = 0,
                                      .counts_mappings = true},
                          MemoryLimit{.name = "the machine's memory",
                                      .limit_bytes = 2 * kMiB,
                                      .left_bytes = kMiB}));
  EXPECT_EQ(AnonymousBytes(folder_.path()), uint64_t{5} << 10);
}

TEST_F(MemoryLimitsTest, ThisProcessHasWhatItsLimitSays) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  const rlimit wide{.rlim_cur = rlim_t{1} << 45, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_AS, &wide), 0);
  bool found = false;
  for (const MemoryLimit& limit : ReadMemoryLimits()) {
    if (limit.limit_bytes != uint64_t{1} << 45) continue;
    found = true;
    EXPECT_GT(limit.left_bytes, 0u);
    EXPECT_LT(limit.left_bytes, limit.limit_bytes);
  }
  EXPECT_TRUE(found);
  EXPECT_GT(AnonymousBytes(), 0u);
  setrlimit(RLIMIT_AS, &before);
}

}  // namespace
}  // namespace nestrec
