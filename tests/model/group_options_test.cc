#include "model/group_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

namespace nestrec {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<GroupOptions> Read(const std::map<std::string, std::string>& variables) {
  return GroupFromEnvironment([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

std::string Error(const std::map<std::string, std::string>& variables) {
  const auto options = Read(variables);
  EXPECT_EQ(options.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(options.status().message());
}

TEST(GroupOptionsTest, AnEnvironmentWithoutRanksIsOneProcess) {
  EXPECT_EQ(Read({})->size, 1);
  EXPECT_EQ(Read({{"RANK", ""}, {"MASTER_PORT", "x"}})->size, 1);
  EXPECT_EQ(Read({{"RANK", "0"}, {"WORLD_SIZE", "1"}})->size, 1);
}

TEST(GroupOptionsTest, ReadsWhatTorchrunSets) {
  const auto options = Read({{"RANK", "5"},
                             {"WORLD_SIZE", "8"},
                             {"LOCAL_RANK", "1"},
                             {"LOCAL_WORLD_SIZE", "4"},
                             {"MASTER_ADDR", "10.0.0.1"},
                             {"MASTER_PORT", "29500"},
                             {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                             {"TORCHELASTIC_RESTART_COUNT", "2"}});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->rank, 5);
  EXPECT_EQ(options->size, 8);
  EXPECT_EQ(options->local_rank, 1);
  EXPECT_EQ(options->local_size, 4);
  EXPECT_EQ(options->master_address, "10.0.0.1");
  EXPECT_EQ(options->master_port, 29500);
  EXPECT_TRUE(options->agent_has_store);
  EXPECT_EQ(options->store_prefix, "/worker/attempt_2");
}

TEST(GroupOptionsTest, NamesTheVariableItsValueAndTheCure) {
  EXPECT_THAT(Error({{"RANK", "1"}}), HasSubstr("RANK: is '1', but WORLD_SIZE is not set"));
  EXPECT_THAT(Error({{"WORLD_SIZE", "two"}}),
              HasSubstr("WORLD_SIZE: 'two' is not a number from 1 to 4096"));
  EXPECT_THAT(Error({{"WORLD_SIZE", "2"}}), HasSubstr("RANK: not set, but WORLD_SIZE is 2"));
  EXPECT_THAT(Error({{"RANK", "2"}, {"WORLD_SIZE", "2"}}),
              HasSubstr("RANK: '2' is not a number from 0 to 1; ranks count from 0"));
  EXPECT_THAT(Error({{"RANK", "-1"}, {"WORLD_SIZE", "2"}}), HasSubstr("RANK: '-1'"));
  EXPECT_THAT(Error({{"RANK", "1"}, {"WORLD_SIZE", "1"}}), HasSubstr("from 0 to 0"));
  EXPECT_THAT(Error({{"RANK", "0"}, {"WORLD_SIZE", "2"}}), HasSubstr("MASTER_ADDR: not set"));
  EXPECT_THAT(Error({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}}),
              HasSubstr("MASTER_PORT: not set"));
  for (const char* port : {"0", "65536", "http"}) {
    EXPECT_THAT(
        Error({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", port}}),
        HasSubstr("is not a number from 1 to 65535"));
  }
}

}  // namespace
}  // namespace nestrec
