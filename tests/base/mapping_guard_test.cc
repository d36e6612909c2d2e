#include "base/mapping_guard.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <string>

#include "base/file.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

class MappingGuardTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { GuardMappings(); }

  std::shared_ptr<const MappedFile> Map(size_t pages) {
    EXPECT_TRUE(WriteFileAtomically(path_, std::string(pages * page_, 'x')).ok());
    return MappedFile::Open(path_).value();
  }
  static int64_t CountOf(const MappedFile& file, char c) {
    return std::count(file.bytes().begin(), file.bytes().end(), static_cast<std::byte>(c));
  }

  const TempFolder folder_;
  const std::string path_ = folder_.File("f");
  const size_t page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
};

TEST_F(MappingGuardTest, WhatIsCutOffReadsAsZerosAndIsLost) {
  const auto file = Map(10);
  const auto other = Map(3);
  const auto whole = static_cast<int64_t>(10 * page_);
  EXPECT_EQ(CountOf(*file, 'x'), whole);
  EXPECT_FALSE(LostBytes(file->data()));
  // The second file took the name.
  std::filesystem::resize_file(path_, page_);
  EXPECT_EQ(CountOf(*file, 'x'), whole);
  EXPECT_FALSE(LostBytes(file->data()));
  EXPECT_EQ(CountOf(*other, 'x'), static_cast<int64_t>(page_));
  EXPECT_EQ(CountOf(*other, 0), static_cast<int64_t>(2 * page_));
  EXPECT_TRUE(LostBytes(other->data()));
  EXPECT_TRUE(LostBytes(other->data() + other->size() - 1));
  EXPECT_FALSE(LostBytes(file->data()));
}

TEST_F(MappingGuardTest, AFileMayShrinkMoreThanOnce) {
  const auto file = Map(8);
  std::filesystem::resize_file(path_, 4 * page_);
  EXPECT_EQ(CountOf(*file, 'x'), static_cast<int64_t>(4 * page_));
  std::filesystem::resize_file(path_, 0);
  EXPECT_EQ(CountOf(*file, 'x'), 0);
  EXPECT_TRUE(LostBytes(file->data()));
}

TEST_F(MappingGuardTest, ALostMappingsPlaceIsGivenOnClean) {
  Map(1);
  for (int round = 0; round < 5000; ++round) {  // more than there are places
    const auto file = MappedFile::Open(path_).value();
    EXPECT_FALSE(LostBytes(file->data()));
    MarkLost(file->data());
    ASSERT_TRUE(LostBytes(file->data()));
  }
  const auto file = MappedFile::Open(path_).value();
  EXPECT_FALSE(LostBytes(file->data()));
}

TEST_F(MappingGuardTest, OtherAddressesAreNotItsBusiness) {
  const int on_the_stack = 0;
  MarkLost(&on_the_stack);
  EXPECT_FALSE(LostBytes(&on_the_stack));
  EXPECT_FALSE(LostBytes(nullptr));
}

TEST_F(MappingGuardTest, AnAccessToAMappingThatIsNotItsOwnEndsTheProcessAsBefore) {
  EXPECT_EXIT(
      {
        const auto file = Map(2);
        UnregisterMapping(file->data());
        std::filesystem::resize_file(path_, 0);
        _exit(static_cast<int>(CountOf(*file, 'x')));
      },
      ::testing::KilledBySignal(SIGBUS), "");
}

}  // namespace
}  // namespace nestrec
