#include "base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "tests/testing/full_disk.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

class FileTest : public testing::Test {
 protected:
  FileTest() : folder_(absl::StrCat(testing::TempDir(), "/nestrec_file_test_", getpid())) {
    std::filesystem::create_directories(folder_);
  }
  ~FileTest() override { std::filesystem::remove_all(folder_); }
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  size_t FilesInFolder() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }
  std::string folder_;
};

TEST_F(FileTest, RemovesOnlyTemporariesThatNobodyWritesAnyMore) {
  const std::string path = Path("a");
  ASSERT_TRUE(WriteFileAtomically(path + ".tmp.abcdef", "left by a kill").ok());
  ASSERT_TRUE(WriteFileAtomically(path + ".tmp.abcdefg", "another's").ok());
  ASSERT_TRUE(WriteFileAtomically(path + "b.tmp.abcdef", "another's").ok());
  auto at_work = AtomicFileWriter::Create(path);
  ASSERT_TRUE(at_work.ok());
  RemoveAbandonedTemporaries(path);
  EXPECT_EQ(FilesInFolder(), 3u);
  EXPECT_FALSE(FileExists(path + ".tmp.abcdef"));
  ASSERT_TRUE((*at_work)->Write("text").ok());
  ASSERT_TRUE((*at_work)->Commit().ok());
  EXPECT_EQ(*ReadFile(path), "text");
  RemoveAbandonedTemporaries(Path("no such folder") + "/a");
}

TEST_F(FileTest, WritesAtomicallyAndReadsBack) {
  const std::string path = Path("a");
  ASSERT_TRUE(WriteFileAtomically(path, "first").ok());
  ASSERT_TRUE(
      WriteFileAtomically(path, std::string(3 << 20, 'x')).ok());  // larger than the write buffer
  EXPECT_EQ(ReadFile(path)->size(), 3u << 20);
  EXPECT_EQ(FilesInFolder(), 1u);
}

TEST_F(FileTest, UncommittedWriteLeavesTheOldFile) {
  const std::string path = Path("a");
  ASSERT_TRUE(WriteFileAtomically(path, "old").ok());
  {
    auto writer = AtomicFileWriter::Create(path);
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->Write("new").ok());
  }
  EXPECT_EQ(*ReadFile(path), "old");
  EXPECT_EQ(FilesInFolder(), 1u);
}

TEST_F(FileTest, WriteThatFailsMidwayLeavesTheOldFile) {
  const std::string path = Path("a");
  ASSERT_TRUE(WriteFileAtomically(path, "old").ok());
  absl::Status status;
  {
    const FullDisk full(1 << 20);
    status = WriteFileAtomically(path, std::string(4 << 20, 'x'));
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(status.message(), HasSubstr(path));
  EXPECT_EQ(*ReadFile(path), "old");
  EXPECT_EQ(FilesInFolder(), 1u);
}

TEST_F(FileTest, ErrorsNameThePath) {
  const std::string missing = Path("missing");
  EXPECT_EQ(ReadFile(missing).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(ReadFile(missing).status().message(), HasSubstr(missing));
  EXPECT_EQ(MappedFile::Open(missing).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(MappedFile::Open(folder_).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(AtomicFileWriter::Create(Path("no/such/folder")).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(WriteFileAtomically(folder_, "x").message(), HasSubstr("it is a folder"));
}

TEST_F(FileTest, ReplacesNothingThatIsNoFile) {
  const std::string fifo = Path("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(WriteFileAtomically(fifo, "x").message(), HasSubstr("it is not a regular file"));
  EXPECT_TRUE(std::filesystem::is_fifo(fifo));
}

TEST_F(FileTest, ReadsNoMoreThanItMay) {
  ASSERT_TRUE(WriteFileAtomically(Path("a"), "12345").ok());
  EXPECT_EQ(*ReadFile(Path("a"), 5), "12345");
  EXPECT_THAT(ReadFile(Path("a"), 4).status().message(), HasSubstr("has more than 4 bytes"));
  EXPECT_THAT(ReadFile("/dev/zero", 100).status().message(), HasSubstr("/dev/zero has more"));
}

TEST_F(FileTest, CheckWritableLeavesNothingBehind) {
  EXPECT_TRUE(CheckWritable(Path("new")).ok());
  EXPECT_EQ(FilesInFolder(), 0u);
  EXPECT_EQ(CheckWritable(Path("no/such/folder")).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(CheckWritable(folder_).message(), HasSubstr("it is a folder"));
}

TEST_F(FileTest, NewFoldersGoAgainUnlessTheyAreKept) {
  ASSERT_TRUE(MakeDirectories(Path("old/empty")).ok());
  for (const char* name : {"old/empty", "old/empty/", "old/new", "a/b/c", "a/b/", "a/../b"}) {
    ASSERT_TRUE(NewFolders::Create(Path(name)).ok()) << name;
    EXPECT_TRUE(FileExists(Path("old/empty"))) << name;
    EXPECT_FALSE(FileExists(Path("old/new"))) << name;
    EXPECT_FALSE(FileExists(Path("a"))) << name;
    EXPECT_FALSE(FileExists(Path("b"))) << name;
  }
  {
    auto kept = NewFolders::Create(Path("a/b"));
    ASSERT_TRUE(kept.ok()) << kept.status();
    EXPECT_TRUE(FileExists(Path("a/b")));
    kept->Keep();
    auto in_use = NewFolders::Create(Path("c/d"));
    ASSERT_TRUE(in_use.ok()) << in_use.status();
    ASSERT_TRUE(WriteFileAtomically(Path("c/somebody else's"), "x").ok());
  }
  EXPECT_TRUE(FileExists(Path("a/b")));
  EXPECT_TRUE(FileExists(Path("c/somebody else's")));
  EXPECT_FALSE(FileExists(Path("c/d")));
}

TEST_F(FileTest, NewFoldersNameTheFileThatIsInTheWay) {
  ASSERT_TRUE(WriteFileAtomically(Path("file"), "x").ok());
  for (const char* name : {"file", "file/below", "file/far/below"}) {
    const absl::Status status = NewFolders::Create(Path(name)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(status.message(), HasSubstr(Path("file") + " is a file, not a folder"));
  }
}

TEST_F(FileTest, MapsAndSurvivesReplacement) {
  const std::string path = Path("a");
  ASSERT_TRUE(WriteFileAtomically(path, "old").ok());
  const auto mapped = MappedFile::Open(path);
  ASSERT_TRUE(mapped.ok());
  ASSERT_TRUE(WriteFileAtomically(path, "new bytes").ok());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>((*mapped)->data()), (*mapped)->size()),
            "old");
  ASSERT_TRUE(WriteFileAtomically(path, "").ok());
  EXPECT_EQ((*MappedFile::Open(path))->size(), 0u);
}

}  // namespace
}  // namespace nestrec
