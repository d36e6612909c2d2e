#include "server/line_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "tests/testing/full_disk.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class LineFileTest : public ::testing::Test {
 protected:
  std::unique_ptr<LineFile> Open(LineFile::Options options) {
    options.path = path_;
    auto file = LineFile::Open(options, log_);
    EXPECT_TRUE(file.ok()) << file.status();
    return file.ok() ? *std::move(file) : nullptr;
  }
  std::string Content(const std::string& suffix = "") const {
    return ReadFile(path_ + suffix).value_or("none");
  }

  TempFolder folder_;
  const std::string path_ = folder_.File("lines.jsonl");
  Mutex mutex_;
  std::string logged_ ABSL_GUARDED_BY(mutex_);
  const Log log_{[this](absl::string_view line) {
    const MutexLock lock(mutex_);
    logged_ += std::string(line) + "\n";
  }};
};

TEST_F(LineFileTest, WritesLinesInOrderAndGoesOnBehindThemLater) {
  {
    const auto file = Open({});
    file->Add("one");
    file->Add("two");
    file->Flush();
    EXPECT_EQ(Content(), "one\ntwo\n");
    EXPECT_EQ(file->stats().lines, 2);
    EXPECT_EQ(file->stats().bytes, 8);
  }
  Open({})->Add("three");  // its end writes what waits
  EXPECT_EQ(Content(), "one\ntwo\nthree\n");
}

TEST_F(LineFileTest, EndsALineThatAKilledProcessLeftUnfinished) {
  ASSERT_TRUE(WriteFileAtomically(path_, "whole\nhal").ok());
  Open({})->Add("next");
  EXPECT_EQ(Content(), "whole\nhal\nnext\n");
}

TEST_F(LineFileTest, PutsFullFilesAsideAndKeepsSoMany) {
  {
    const auto file = Open({.max_file_bytes = 12, .files = 3});
    for (int i = 0; i < 9; ++i) file->Add(absl::StrCat("line", i));  // two of them fit
    file->Flush();
    EXPECT_EQ(file->stats().lines, 9);
  }
  EXPECT_EQ(Content(), "line8\n");
  EXPECT_EQ(Content(".1"), "line6\nline7\n");
  EXPECT_EQ(Content(".2"), "line4\nline5\n");
  EXPECT_EQ(Content(".3"), "none");
  EXPECT_THAT(LineFilesOf(path_), ElementsAre(path_ + ".2", path_ + ".1", path_));
  EXPECT_THAT(LineFilesOf(folder_.File("other")), IsEmpty());
}

TEST_F(LineFileTest, WithOneFileTheOldLinesGo) {
  const auto file = Open({.max_file_bytes = 10, .files = 1});
  for (const char* line : {"first", "second", "a line longer than the file may be"}) {
    file->Add(line);
  }
  file->Flush();
  EXPECT_EQ(Content(), "a line longer than the file may be\n");
  EXPECT_EQ(Content(".1"), "none");
}

TEST_F(LineFileTest, LeavesOutWhatItsQueueHasNoRoomFor) {
  const auto file = Open({.max_queue_bytes = 10});
  file->Add("this is longer than the queue");
  file->Add("short");
  file->Flush();
  EXPECT_EQ(Content(), "short\n");
  EXPECT_EQ(file->stats().dropped_queue, 1);
  EXPECT_EQ(file->stats().lines, 1);
}

TEST_F(LineFileTest, AFullDiskCostsLinesAndNothingElse) {
  const auto file = Open({});
  file->Add("fits");
  file->Flush();
  {
    const FullDisk full(10);
    file->Add("this is too long");
    file->Add("this is too long, too");
    file->Flush();
  }
  EXPECT_EQ(file->stats().dropped_disk, 2);
  EXPECT_EQ(Content(), "fits\n");  // no half of a line
  file->Add("there is room again");
  file->Flush();
  EXPECT_EQ(Content(), "fits\nthere is room again\n");
  const MutexLock lock(mutex_);
  EXPECT_THAT(logged_, HasSubstr(absl::StrCat("request_log_failed error=")));
  EXPECT_THAT(logged_, HasSubstr(path_));
}

TEST_F(LineFileTest, LosesNoLineOfManyThreads) {
  const auto file = Open({.max_file_bytes = 20'000, .files = 100});
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 2000; ++i) file->Add(absl::StrCat(thread, " ", i));
    });
  }
  for (std::thread& thread : threads) thread.join();
  file->Flush();
  std::vector<int> next(4, 0);
  for (const std::string& part : LineFilesOf(path_)) {
    for (const absl::string_view line : absl::StrSplit(*ReadFile(part), '\n', absl::SkipEmpty())) {
      const auto thread = static_cast<size_t>(line[0] - '0');
      EXPECT_EQ(line, absl::StrCat(thread, " ", next[thread]++));
    }
  }
  EXPECT_THAT(next, ElementsAre(2000, 2000, 2000, 2000));
}

TEST_F(LineFileTest, NamesWhatItCannotOpen) {
  const auto open = [&](const std::string& path) {
    return LineFile::Open({.path = path}, log_).status();
  };
  EXPECT_THAT(open(folder_.File("none/lines")).message(), HasSubstr("none/lines"));
  EXPECT_FALSE(open(folder_.path()).ok());
  ASSERT_EQ(mkfifo(folder_.File("pipe").c_str(), 0600), 0);
  EXPECT_THAT(open(folder_.File("pipe")).message(), HasSubstr("is not a regular file"));
}

}  // namespace
}  // namespace nestrec
