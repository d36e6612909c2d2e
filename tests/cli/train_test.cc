// The real `nestrec train`, told to stop.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/file.h"
#include "tests/cli/program.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

constexpr absl::Duration kPatience = absl::Minutes(4);

// The write end of a named pipe, once somebody reads from it; -1 when nobody comes.
int OpenForReader(const std::string& path) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (absl::Now() < deadline) {
    const int fd = open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0) return fd;
    absl::SleepFor(absl::Milliseconds(5));  // between two looks at a condition
  }
  return -1;
}

class StoppedWhileLoading : public testing::Test {
 protected:
  // `nestrec train` on a shop whose interactions come through a pipe: `signal` is sent when it
  // waits for them. Returns its exit code.
  int Run(int signal) {
    EXPECT_EQ(MakeShop(folder_.path(), 60, 40).exit_code, 0);
    const std::string path = folder_.File("data/interactions.txt");
    const std::string interactions = *ReadFile(path);
    std::filesystem::remove(path);
    EXPECT_EQ(mkfifo(path.c_str(), 0600), 0);
    const auto training = StartProgram({"train", "--data", folder_.File("data"), "--dim", "8",
                                        "--output", folder_.File("model.safetensors")});
    const int fd = OpenForReader(path);
    EXPECT_GE(fd, 0);
    if (fd < 0) return -1;
    training->Signal(signal);
    // It fits into the pipe.
    EXPECT_EQ(write(fd, interactions.data(), interactions.size()),
              static_cast<ssize_t>(interactions.size()));
    close(fd);
    const auto exit_code = training->WaitForExit(kPatience);
    EXPECT_TRUE(exit_code.ok()) << exit_code.status();
    output_ = training->output();
    EXPECT_FALSE(FileExists(folder_.File("model.safetensors")));
    EXPECT_FALSE(FileExists(folder_.File("model.safetensors.state")));
    return exit_code.value_or(-1);
  }

  TempFolder folder_;
  std::string output_;
};

TEST_F(StoppedWhileLoading, SigtermIsACleanExitWithOneLine) {
  EXPECT_EQ(Run(SIGTERM), 0);
  EXPECT_EQ(output_, "stopped while the data was loaded; nothing was written\n");
}

TEST_F(StoppedWhileLoading, CtrlCIsAnErrorThatSaysTheSame) {
  EXPECT_EQ(Run(SIGINT), 130);
  EXPECT_EQ(output_, "error: stopped while the data was loaded; nothing was written\n");
}

}  // namespace
}  // namespace nestrec
