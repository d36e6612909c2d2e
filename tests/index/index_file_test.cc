#include "index/index_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/testing/full_disk.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

class IndexFileTest : public ::testing::Test {
 protected:
  IndexFileTest() : folder_(absl::StrCat(::testing::TempDir(), "/index_file_test_", getpid())) {
    std::filesystem::create_directories(folder_);
  }
  ~IndexFileTest() override { std::filesystem::remove_all(folder_); }

  std::string path() const { return folder_ + "/a.index"; }
  size_t FilesInFolder() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }
  static absl::Status Write(const std::string& path, const std::string& key,
                            const std::string& payload) {
    auto writer = IndexFileWriter::Create(path, key);
    if (!writer.ok()) return writer.status();
    for (size_t i = 0; i < payload.size(); i += 1000) {  // in pieces, as FAISS does
      const std::string piece = payload.substr(i, 1000);
      if (absl::Status status = (*writer)->Write(piece.data(), piece.size()); !status.ok()) {
        return status;
      }
    }
    return (*writer)->Commit();
  }
  static std::string Payload(const IndexFile& file) {
    return {reinterpret_cast<const char*>(file.payload.data()), file.payload.size()};
  }

  std::string folder_;
};

TEST_F(IndexFileTest, GivesBackWhatWasWritten) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{63}, size_t{5000}, size_t{3} << 20}) {
    for (const std::string& key : {std::string(), std::string("dim=8"), std::string(4096, 'k')}) {
      const std::string payload(size, static_cast<char>('a' + size % 7));
      ASSERT_TRUE(Write(path(), key, payload).ok());
      const auto file = OpenIndexFile(path(), key);
      ASSERT_TRUE(file.ok()) << file.status();
      EXPECT_EQ(Payload(*file), payload);
    }
  }
  EXPECT_EQ(FilesInFolder(), 1u);
}

TEST_F(IndexFileTest, SaysThatThereIsNone) {
  EXPECT_EQ(OpenIndexFile(path(), "k").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(IndexFileTest, NamesBothKeysWhenTheyDiffer) {
  ASSERT_TRUE(Write(path(), "source=a dim=8", "x").ok());
  const absl::Status status = OpenIndexFile(path(), "source=b dim=8").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("is of source=a dim=8; needed is one of source=b dim=8"));
}

TEST_F(IndexFileTest, RefusesEveryByteThatIsChanged) {
  ASSERT_TRUE(Write(path(), "key", std::string(300, 'p')).ok());
  const std::string good = *ReadFile(path());
  for (size_t at = 0; at < good.size(); ++at) {
    for (const char flip : {'\x01', '\x80'}) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ flip);
      ASSERT_TRUE(WriteFileAtomically(path(), bad).ok());
      const absl::Status status = OpenIndexFile(path(), "key").status();
      EXPECT_TRUE(absl::IsDataLoss(status) || absl::IsFailedPrecondition(status))
          << at << ": " << status;
    }
  }
}

TEST_F(IndexFileTest, RefusesEveryLengthThatIsCutOrAddedTo) {
  ASSERT_TRUE(Write(path(), "key", std::string(300, 'p')).ok());
  const std::string good = *ReadFile(path());
  for (size_t size = 0; size < good.size(); ++size) {
    ASSERT_TRUE(WriteFileAtomically(path(), good.substr(0, size)).ok());
    EXPECT_TRUE(absl::IsDataLoss(OpenIndexFile(path(), "key").status())) << size;
  }
  ASSERT_TRUE(WriteFileAtomically(path(), good + "x").ok());
  EXPECT_TRUE(absl::IsDataLoss(OpenIndexFile(path(), "key").status()));
  ASSERT_TRUE(WriteFileAtomically(path(), std::string(10'000, '\0')).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(OpenIndexFile(path(), "key").status()));
}

TEST_F(IndexFileTest, AKillInTheMiddleLeavesTheOldFileAndNoRubbishForLong) {
  ASSERT_TRUE(Write(path(), "key", "old").ok());
  const pid_t child = fork();
  if (child == 0) {
    auto writer = IndexFileWriter::Create(path(), "key");
    const std::string part(3 << 20, 'n');
    if (writer.ok() && (*writer)->Write(part.data(), part.size()).ok()) kill(getpid(), SIGKILL);
    _exit(1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(FilesInFolder(), 2u);  // what the kill left
  EXPECT_EQ(Payload(*OpenIndexFile(path(), "key")), "old");
  ASSERT_TRUE(Write(path(), "key", "new").ok());
  EXPECT_EQ(FilesInFolder(), 1u);
  EXPECT_EQ(Payload(*OpenIndexFile(path(), "key")), "new");
}

TEST_F(IndexFileTest, AWriterThatIsAtWorkIsLeftAlone) {
  auto first = IndexFileWriter::Create(path(), "key");
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(Write(path(), "key", "second").ok());
  ASSERT_TRUE((*first)->Write("first", 5).ok());
  ASSERT_TRUE((*first)->Commit().ok());
  EXPECT_EQ(Payload(*OpenIndexFile(path(), "key")), "first");
}

TEST_F(IndexFileTest, ManyWritersLeaveOneWholeFile) {
  std::vector<std::jthread> writers;
  for (char c = 'a'; c < 'i'; ++c) {
    writers.emplace_back([this, c] {
      for (int round = 0; round < 5; ++round) {
        const absl::Status written = Write(path(), "key", std::string(100'000, c));
        EXPECT_TRUE(written.ok()) << written;
        const auto file = OpenIndexFile(path(), "key");
        ASSERT_TRUE(file.ok()) << file.status();
        const std::string payload = Payload(*file);
        EXPECT_EQ(payload, std::string(100'000, payload[0]));
      }
    });
  }
  writers.clear();
  EXPECT_EQ(FilesInFolder(), 1u);
}

TEST_F(IndexFileTest, AFullDiskLeavesTheOldFile) {
  ASSERT_TRUE(Write(path(), "key", "old").ok());
  const absl::Status status = [&] {
    const FullDisk full(1 << 20);
    return Write(path(), "key", std::string(5 << 20, 'x'));
  }();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(FilesInFolder(), 1u);
  EXPECT_EQ(Payload(*OpenIndexFile(path(), "key")), "old");
}

TEST(IndexFileName, DiffersForEveryFactoryAndDim) {
  EXPECT_THAT(IndexFileName(64, "IVF256,Flat"), HasSubstr("dim64-IVF256_Flat-"));
  EXPECT_NE(IndexFileName(64, "IVF256,Flat"), IndexFileName(64, "IVF256_Flat"));
  EXPECT_NE(IndexFileName(64, "SQ8"), IndexFileName(128, "SQ8"));
  EXPECT_LT(IndexFileName(64, std::string(10'000, ',')).size(), 100u);
  EXPECT_EQ(IndexFileName(8, "../../x").find('/'), std::string::npos);
}

}  // namespace
}  // namespace nestrec
