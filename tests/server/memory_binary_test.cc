// The real program under real limits of memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/file.h"
#include "server/client.h"
#include "tests/server/raw_http2.h"
#include "tests/testing/child_process.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class MemoryBinaryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(MakeDirectories(folder_.File("models")).ok());
    ASSERT_TRUE(RandomModel({}).Write(folder_.File("models/v1.safetensors")).ok());
  }

  // `limits`: what the shell sets before it becomes the program.
  std::unique_ptr<ChildProcess> Start(const std::string& limits, std::vector<std::string> flags) {
    std::vector<std::string> arguments = {"/bin/sh",
                                          "-c",
                                          absl::StrCat(limits, " exec \"$@\""),
                                          "sh",
                                          NESTREC_PROGRAM,
                                          "serve",
                                          "--model",
                                          folder_.File("models"),
                                          "--model-poll",
                                          "20ms",
                                          "--threads",
                                          "1",
                                          "--listen",
                                          "127.0.0.1:0",
                                          "--port-file",
                                          folder_.File("port")};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    absl::StatusOr<std::unique_ptr<ChildProcess>> child = ChildProcess::Start(arguments);
    EXPECT_TRUE(child.ok()) << child.status();
    return std::move(child).value();
  }

  std::string OutputOfRefusal(const std::string& limits, std::vector<std::string> flags) {
    const std::unique_ptr<ChildProcess> child = Start(limits, std::move(flags));
    EXPECT_EQ(child->WaitForExit().value_or(-1), 1) << child->output();
    return child->output();
  }

  const TempFolder folder_;
};

TEST_F(MemoryBinaryTest, StatesThatTheMachineHasNoMemoryForAreRefusedAtStart) {
  EXPECT_THAT(OutputOfRefusal("", {"--sessions", folder_.File("sessions"), "--session-state-bytes",
                                   "109951162777600", "--max-call-memory", "33554432"}),
              AllOf(HasSubstr("at --max-dim 32 needs 102400.0 GiB more"),
                    HasSubstr("session states up to 102400.0 GiB"), HasSubstr("is left; "),
                    HasSubstr("lower --session-state-bytes"), HasSubstr("--memory-limit none")));
}

TEST_F(MemoryBinaryTest, ALimitOfTheProcessHolds) {
  // 256 GiB of address space are enough for the program, and less than what the states may take.
  const std::string limits = "ulimit -v 268435456;";
  const std::vector<std::string> flags = {"--sessions", folder_.File("sessions"),
                                          "--session-state-bytes", "549755813888"};
  EXPECT_THAT(OutputOfRefusal(limits, flags),
              HasSubstr("of the process's limit of address space (ulimit -v), 256.0 GiB, only "));
  std::vector<std::string> trusted = flags;
  trusted.insert(trusted.end(), {"--memory-limit", "none"});
  const std::unique_ptr<ChildProcess> child = Start(limits, trusted);
  EXPECT_TRUE(child->WaitForOutput(" serving ").ok()) << child->output();
}

TEST_F(MemoryBinaryTest, AValueThatIsNoLimitIsAWrongCommandLine) {
  const std::unique_ptr<ChildProcess> child = Start("", {"--memory-limit", "4G"});
  EXPECT_EQ(child->WaitForExit().value_or(-1), 2);
  EXPECT_THAT(child->output(), HasSubstr("--memory-limit: '4G' is not auto, none or a number"));
}

int64_t AnonymousBytesOf(pid_t pid) {
  const std::string status = ReadFile(absl::StrCat("/proc/", pid, "/status")).value_or("");
  const size_t at = status.find("RssAnon:");
  return at == std::string::npos ? 0 : std::stoll(status.substr(at + 8)) * 1024;
}

TEST_F(MemoryBinaryTest, ANewModelThatDoesNotFitIsRefusedAndTheOldOneServesOn) {
  int64_t used = 0;
  {
    const std::unique_ptr<ChildProcess> child = Start("", {});
    ASSERT_TRUE(child->WaitForOutput(" serving ").ok()) << child->output();
    used = AnonymousBytesOf(child->pid());
  }
  ASSERT_GT(used, 0);
  const std::unique_ptr<ChildProcess> child =
      Start("", {"--memory-limit", absl::StrCat(used + (int64_t{24 + 32} << 20)),
                 "--max-call-memory", "33554432"});
  ASSERT_TRUE(child->WaitForOutput(" serving ").ok()) << child->output();
  // 100,000 items at 8, 16 and 32 columns: 13 MB of vectors, 22 of indexes, some 24 of fields.
  ASSERT_TRUE(
      RandomModel({.items = 100'000, .seed = 2}).Write(folder_.File("models/v2.safetensors")).ok());
  const absl::StatusOr<std::string> refused = child->WaitForOutput("model_refused");
  ASSERT_TRUE(refused.ok()) << refused.status();
  EXPECT_THAT(*refused, AllOf(HasSubstr("v2.safetensors at --max-dim 32 needs"),
                              HasSubstr("of --memory-limit, "), HasSubstr("would fit")));
  const std::string port = ReadFile(folder_.File("port")).value_or("");
  const RecommendClient client(
      {.server = absl::StrCat("127.0.0.1:", absl::StripAsciiWhitespace(port))});
  const absl::StatusOr<v1::RecommendResponse> answer = client.Recommend({});
  EXPECT_TRUE(answer.ok()) << answer.status();
  // One that fits is taken.
  ASSERT_TRUE(RandomModel({.seed = 3}).Write(folder_.File("models/v3.safetensors")).ok());
  const absl::StatusOr<std::string> taken = child->WaitForOutput("model_unloaded name=v1");
  EXPECT_TRUE(taken.ok()) << taken.status();
  child->Signal(SIGTERM);
  EXPECT_EQ(child->WaitForExit().value_or(-1), 0);
}

TEST_F(MemoryBinaryTest, UnfinishedCallsTakeNoMoreThanTheirShareAndGiveItBack) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  constexpr int64_t kCallMemory = 32 * kMiB;
  // What gRPC takes beyond its quota until calls have ended, and what the allocator keeps: 215 MiB
  // were seen on a machine that does nothing else, 390 on one whose cores were taken.
  constexpr int64_t kSlack = 640 * kMiB;
  const std::unique_ptr<ChildProcess> child =
      Start("", {"--max-call-memory", absl::StrCat(kCallMemory)});
  ASSERT_TRUE(child->WaitForOutput(" serving ").ok()) << child->output();
  int port = 0;
  ASSERT_TRUE(absl::SimpleAtoi(
      absl::StripAsciiWhitespace(ReadFile(folder_.File("port")).value_or("")), &port));
  const RecommendClient client({.server = absl::StrCat("127.0.0.1:", port)});
  ASSERT_TRUE(client.Recommend({}).ok());
  const int64_t before = AnonymousBytesOf(child->pid());

  int64_t most = before;
  {
    std::vector<std::unique_ptr<UnfinishedCalls>> attackers;
    for (int i = 0; i < 3; ++i) {
      attackers.push_back(std::make_unique<UnfinishedCalls>(
          port, "/nestrec.v1.RecommendService/Recommend", 20, 15 * kMiB));
    }
    // Without a bound the calls that are open at a time would hold 900 MiB.
    const auto sent = [&] {
      int64_t bytes = 0;
      for (const auto& attacker : attackers) bytes += attacker->sent_bytes();
      return bytes;
    };
    int served = 0;
    const absl::Time end = absl::Now() + absl::Minutes(3);
    for (int turn = 1; (sent() < 1200 * kMiB || served < 20) && absl::Now() < end; ++turn) {
      for (const auto& attacker : attackers) {
        if (attacker->ok()) attacker->Step();
      }
      if (turn % 50 == 0) {
        most = std::max(most, AnonymousBytesOf(child->pid()));
        ASSERT_LT(most - before, kCallMemory + kSlack) << sent() << " bytes were sent";
        served += client.Recommend({}).ok();
      }
    }
    EXPECT_GE(sent(), 1200 * kMiB);
    // Some of the good client's calls may end too.
    EXPECT_GE(served, 20);
    int64_t ended = 0;
    for (const auto& attacker : attackers) ended += attacker->ended();
    EXPECT_GT(ended, 0);
  }
  const absl::Time patience = absl::Now() + absl::Minutes(1);
  while (AnonymousBytesOf(child->pid()) > before + 48 * kMiB && absl::Now() < patience) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_LE(AnonymousBytesOf(child->pid()), before + 48 * kMiB) << before << ", " << most;
  // Its connection may have been among those that were ended.
  while (!client.Recommend({}).ok() && absl::Now() < patience) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_TRUE(client.Recommend({}).ok());
}

TEST_F(MemoryBinaryTest, TooLittleMemoryForCallsIsAWrongCommandLine) {
  const std::unique_ptr<ChildProcess> child =
      Start("", {"--max-call-memory", "33554432", "--max-message-bytes", "20000000"});
  EXPECT_EQ(child->WaitForExit().value_or(-1), 2);
  EXPECT_THAT(child->output(),
              HasSubstr("--max-call-memory: 33554432 bytes are less than 40000000, which is two of "
                        "--max-message-bytes"));
}

}  // namespace
}  // namespace nestrec
