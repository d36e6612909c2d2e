#include "server/lifecycle/model_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> NamesIn(const std::string& folder) {
  const auto files = ListModels(folder);
  EXPECT_TRUE(files.ok()) << files.status();
  std::vector<std::string> names;
  for (const ModelFile& file : files.value_or(std::vector<ModelFile>{})) names.push_back(file.name);
  return names;
}

TEST(NaturalLess, OrdersNumbersAsNumbers) {
  EXPECT_TRUE(NaturalLess("v9", "v10"));
  EXPECT_FALSE(NaturalLess("v10", "v9"));
  EXPECT_TRUE(NaturalLess("2026-09-30", "2026-10-01"));
  EXPECT_TRUE(NaturalLess("v1.9.2", "v1.10.1"));
  EXPECT_TRUE(NaturalLess("v2", "v2b"));
  EXPECT_TRUE(NaturalLess("", "0"));
  EXPECT_TRUE(NaturalLess("99999999999999999999998", "99999999999999999999999"));
}

TEST(NaturalLess, IsAStrictOrderOnAllNames) {
  const std::vector<std::string> names = {"",   "0",    "00",  "1",    "01",   "1a",  "a",
                                          "a0", "a00",  "a01", "a1",   "a1b2", "a10", "a1b10",
                                          "b",  "\xff", "v9",  "v10-", "v010", "v10"};
  for (const std::string& a : names) {
    EXPECT_FALSE(NaturalLess(a, a)) << a;
    for (const std::string& b : names) {
      if (a != b) {
        EXPECT_NE(NaturalLess(a, b), NaturalLess(b, a)) << a << " and " << b;
      }
      for (const std::string& c : names) {
        if (NaturalLess(a, b) && NaturalLess(b, c)) {
          EXPECT_TRUE(NaturalLess(a, c)) << a << ", " << b << ", " << c;
        }
      }
    }
  }
}

TEST(ModelFolder, ListsCheckpointsOldestFirstAndNothingElse) {
  const TempFolder folder;
  for (const char* name : {"v10.safetensors", "v9.safetensors", ".v11.safetensors", "v12.tmp",
                           "labels.textproto", ".safetensors"}) {
    ASSERT_TRUE(WriteFileAtomically(folder.path() + "/" + name, "x").ok());
  }
  ASSERT_TRUE(MakeDirectories(folder.path() + "/v13.safetensors").ok());
  std::filesystem::create_symlink("v9.safetensors", folder.path() + "/v8.safetensors");
  std::filesystem::create_symlink("nowhere", folder.path() + "/v14.safetensors");
  EXPECT_THAT(NamesIn(folder.path()), ElementsAre("v8", "v9", "v10"));
}

TEST(ModelFolder, AFileIsItsOnlyVersionAndAReplacedOneIsAnother) {
  const TempFolder folder;
  const std::string path = folder.path() + "/beauty.safetensors";
  ASSERT_TRUE(WriteFileAtomically(path, "x").ok());
  EXPECT_THAT(NamesIn(path), ElementsAre("beauty"));
  const ModelFile before = ListModels(path)->at(0);
  EXPECT_EQ(ListModels(path)->at(0), before);
  ASSERT_TRUE(WriteFileAtomically(path, "y").ok());
  EXPECT_NE(ListModels(path)->at(0), before);
}

TEST(ModelFolder, SaysWhatIsMissing) {
  const TempFolder folder;
  const absl::Status missing = ListModels(folder.path() + "/none").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("/none is neither"));
  EXPECT_THAT(NamesIn(folder.path()), ElementsAre());
}

}  // namespace
}  // namespace nestrec
