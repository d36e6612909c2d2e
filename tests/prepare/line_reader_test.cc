#include "model/prepare/line_reader.h"

#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <string>
#include <vector>

#include "base/file.h"
#include "base/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<std::vector<std::string>> AllLines(const std::string& path) {
  auto reader = LineReader::Open(path);
  if (!reader.ok()) return reader.status();
  std::vector<std::string> lines;
  while (true) {
    const auto line = (*reader)->Next();
    if (!line.ok()) return line.status();
    if (!line->has_value()) return lines;
    lines.emplace_back(**line);
    EXPECT_EQ((*reader)->number(), static_cast<int64_t>(lines.size()));
    EXPECT_LE((*reader)->fraction(), 1);
  }
}

void WriteGzip(const std::string& path, const std::string& content) {
  gzFile file = gzopen(path.c_str(), "wb");
  ASSERT_EQ(gzwrite(file, content.data(), static_cast<unsigned>(content.size())),
            static_cast<int>(content.size()));
  ASSERT_EQ(gzclose(file), Z_OK);
}

class LineReaderTest : public ::testing::Test {
 protected:
  TempFolder folder_;
  const std::string path_ = folder_.File("file");
};

TEST_F(LineReaderTest, ReadsEveryKindOfLineEnd) {
  ASSERT_TRUE(WriteFileAtomically(path_,
                                  "\xef\xbb\xbf"
                                  "a\r\n\nb \r\r\nc")
                  .ok());
  EXPECT_THAT(*AllLines(path_), ElementsAre("a", "", "b \r", "c"));
  ASSERT_TRUE(WriteFileAtomically(path_, "").ok());
  EXPECT_THAT(*AllLines(path_), ElementsAre());
  ASSERT_TRUE(WriteFileAtomically(path_, "\n").ok());
  EXPECT_THAT(*AllLines(path_), ElementsAre(""));
}

TEST_F(LineReaderTest, ReadsLinesLongerThanItsBufferPlainAndGzip) {
  Random random(1);
  std::vector<std::string> lines;
  std::string content;
  for (int i = 0; i < 300; ++i) {
    const int64_t length = i % 100 == 99 ? 700000 : random.Index(3000);
    lines.emplace_back(static_cast<size_t>(length), static_cast<char>('a' + i % 26));
    content += lines.back() + "\n";
  }
  ASSERT_TRUE(WriteFileAtomically(path_, content).ok());
  EXPECT_EQ(*AllLines(path_), lines);
  WriteGzip(folder_.File("file.gz"), content);
  EXPECT_EQ(*AllLines(folder_.File("file.gz")), lines);
}

TEST_F(LineReaderTest, RefusesDamagedGzipFiles) {
  Random random(2);
  std::string content;
  for (int i = 0; i < 20000; ++i) content += std::to_string(random.Next()) + "\n";
  WriteGzip(path_, content);
  const std::string whole = *ReadFile(path_);
  ASSERT_TRUE(WriteFileAtomically(path_, whole.substr(0, whole.size() / 2)).ok());
  EXPECT_EQ(AllLines(path_).status().code(), absl::StatusCode::kDataLoss)
      << AllLines(path_).status();
  std::string flipped = whole;
  flipped[flipped.size() - 6] ^= 1;  // in the checksum
  ASSERT_TRUE(WriteFileAtomically(path_, flipped).ok());
  EXPECT_THAT(std::string(AllLines(path_).status().message()), HasSubstr("damaged or cut off"));
}

TEST_F(LineReaderTest, RefusesMissingFilesFoldersAndEndlessLines) {
  EXPECT_EQ(AllLines(folder_.File("absent")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(AllLines(folder_.path()).status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(
      WriteFileAtomically(path_, std::string(LineReader::kMaxLineBytes + (2 << 20), 'x')).ok());
  EXPECT_THAT(std::string(AllLines(path_).status().message()), HasSubstr("is this a text file?"));
}

TEST_F(LineReaderTest, RefusesPipesAndDevices) {
  const std::string pipe =
      ::testing::TempDir() + "/line_reader_test_pipe." + std::to_string(getpid());
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const std::string& path : {pipe, std::string("/dev/zero")}) {
    const auto reader = LineReader::Open(path);
    EXPECT_EQ(reader.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(
        reader.status().message(),
        "cannot read " + path + ": it is a pipe or a device; write its content to a file first");
  }
  unlink(pipe.c_str());
}

}  // namespace
}  // namespace nestrec
