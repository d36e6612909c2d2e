// Data-parallel training with the real program: two processes on this machine.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "model/batch.h"
#include "tests/cli/program.h"
#include "tests/testing/checkpoint_weights.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

// Generous: two processes that start libtorch on a busy machine.
constexpr absl::Duration kPatience = absl::Minutes(4);

// A port of 127.0.0.1 that no other program is given while this lives; a server that reuses
// addresses may still listen at it.
class ReservedPort {
 public:
  ReservedPort() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int on = 1;
    setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof(address);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &length), 0);
    port_ = ntohs(address.sin_port);
  }
  ~ReservedPort() { close(fd_); }
  ReservedPort(const ReservedPort&) = delete;
  ReservedPort& operator=(const ReservedPort&) = delete;
  int port() const { return port_; }

 private:
  int fd_;
  int port_ = 0;
};

using Arguments = std::vector<std::string>;

class DistributedTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    ASSERT_EQ(MakeShop(folder_->path()).exit_code, 0);
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }

  static std::string File(const std::string& name) { return folder_->File(name); }

  // `nestrec train`, small, to the checkpoint `name`.
  static Arguments Training(const std::string& name, const Arguments& more) {
    Arguments arguments = {"train",     "--data", File("data"),         "--sizes", "8,16",
                           "--max-len", "10",     "--threads",          "1",       "--output",
                           File(name),  "--json", File(name + ".json"), "--lr",    "0.002"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  std::unique_ptr<ChildProcess> Start(const Arguments& environment, const Arguments& arguments) {
    Arguments all = {"/usr/bin/env"};
    all.insert(all.end(), environment.begin(), environment.end());
    all.push_back(NESTREC_PROGRAM);
    all.insert(all.end(), arguments.begin(), arguments.end());
    auto child = ChildProcess::Start(all);
    EXPECT_TRUE(child.ok()) << child.status();
    return child.ok() ? *std::move(child) : nullptr;
  }

  std::unique_ptr<ChildProcess> StartRank(int rank, const Arguments& arguments) {
    return Start({absl::StrCat("RANK=", rank), "WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1",
                  absl::StrCat("MASTER_PORT=", port_.port())},
                 arguments);
  }

  using Ranks = std::vector<std::unique_ptr<ChildProcess>>;

  Ranks StartTwo(const Arguments& zero, const Arguments& one) {
    Ranks ranks;
    ranks.push_back(StartRank(0, zero));
    ranks.push_back(StartRank(1, one));
    return ranks;
  }

  // Both ranks with the same arguments, to their end.
  std::vector<ProgramResult> RunTwo(const Arguments& arguments) {
    return Finish(StartTwo(arguments, arguments));
  }

  static std::vector<ProgramResult> Finish(const Ranks& ranks) {
    std::vector<ProgramResult> results;
    for (const auto& rank : ranks) {
      const auto code = rank->WaitForExit(kPatience);
      EXPECT_TRUE(code.ok()) << code.status();
      results.push_back({code.value_or(-1), rank->output()});
    }
    return results;
  }

  // Of every epoch.
  static std::vector<double> Losses(const std::string& name) {
    std::istringstream lines(ReadFile(File(name + ".json")).value_or(""));
    std::vector<double> losses;
    for (std::string line; std::getline(lines, line);) {
      const auto json = nlohmann::json::parse(line);
      if (json["event"] == "epoch") losses.push_back(json["loss"]);
    }
    return losses;
  }

  static std::vector<float> Weights(const std::string& name) {
    return CheckpointWeights(File(name));
  }

  // That two processes with `flags`, three epochs without dropout, have one's losses and weights.
  void ExpectAsOneProcess(const std::string& name, const Arguments& flags) {
    const ProgramResult one = RunProgram(Training(name + "-one", flags));
    ASSERT_EQ(one.exit_code, 0) << one.output;
    const auto two = RunTwo(Training(name + "-two", flags));
    ASSERT_EQ(two[0].exit_code, 0) << two[0].output;
    ASSERT_EQ(two[1].exit_code, 0) << two[1].output;
    EXPECT_THAT(two[0].output, HasSubstr("2 processes, each with its share of every batch"));

    const std::vector<double> expected = Losses(name + "-one"), losses = Losses(name + "-two");
    ASSERT_EQ(expected.size(), 3u);
    ASSERT_EQ(losses.size(), 3u);
    for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(losses[i], expected[i], 1e-5 * expected[i]);
    const std::vector<float> a = Weights(name + "-one"), b = Weights(name + "-two");
    ASSERT_EQ(a.size(), b.size());
    double largest = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(a[i]) - b[i]));
    }
    EXPECT_LT(largest, 1e-4);
  }

  static TempFolder* folder_;
  ReservedPort port_;
};

TempFolder* DistributedTest::folder_ = nullptr;

TEST_F(DistributedTest, TwoProcessesTrainWhatOneTrains) {
  const auto dataset = Dataset::Load(File("data"), {});
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  const size_t windows = MakeTrainingWindows(**dataset, 10, Windows::kLast).size();
  // The last batch has one sequence: a rank has none of it.
  size_t batch = 24;
  while (windows % batch != 1) ++batch;
  ASSERT_LT(batch, windows);
  const Arguments plain = {"--epochs", "3", "--dropout", "0", "--batch-size", absl::StrCat(batch)};
  ExpectAsOneProcess("plain", plain);
  // Every norm is above this: it matters that what is clipped is the sum.
  Arguments clipped = plain;
  for (const char* flag : {"--clip", "0.01"}) clipped.push_back(flag);
  ExpectAsOneProcess("clipped", clipped);
  Arguments sampled = plain;
  for (const char* flag : {"--sampled-items", "30", "--item-residual"}) sampled.push_back(flag);
  ExpectAsOneProcess("sampled", sampled);
  Arguments principal = plain;
  for (const char* flag : {"--projector-start", "principal"}) principal.push_back(flag);
  ExpectAsOneProcess("principal", principal);
}

TEST_F(DistributedTest, RanksWithOtherFeaturesAreRefused) {
  const std::string other = File("other-features");
  std::filesystem::copy(File("data"), other, std::filesystem::copy_options::recursive);
  const std::string path = other + "/features/text.npy";
  std::string bytes = *ReadFile(path);
  bytes.replace(bytes.size() - 4, 4, std::string("\0\0\x80\x3f", 4));  // the last value: 1
  ASSERT_TRUE(WriteFileAtomically(path, bytes).ok());
  const Arguments flags = {"--epochs", "1", "--feature-scaling", "none"};
  Arguments second = Training("features", flags);
  *(std::find(second.begin(), second.end(), "--data") + 1) = other;
  for (const ProgramResult& rank : Finish(StartTwo(Training("features", flags), second))) {
    EXPECT_EQ(rank.exit_code, 1) << rank.output;
    EXPECT_THAT(rank.output, HasSubstr("features text: "));
  }
}

TEST_F(DistributedTest, AStopOfOneRankStopsAllAndTheRunGoesOnExactly) {
  const Arguments flags = {"--epochs", "5", "--dropout", "0.5", "--batch-size", "3"};
  for (const ProgramResult& rank : RunTwo(Training("whole", flags))) {
    ASSERT_EQ(rank.exit_code, 0) << rank.output;
  }
  const Ranks ranks = StartTwo(Training("parts", flags), Training("parts", flags));
  const auto line = ranks[0]->WaitForOutput("epoch   2", kPatience);
  ASSERT_TRUE(line.ok()) << line.status();
  ranks[1]->Signal(SIGTERM);
  for (const ProgramResult& rank : Finish(ranks)) {
    ASSERT_EQ(rank.exit_code, 0) << rank.output;
  }
  Arguments resumed = flags;
  resumed.push_back("--resume");
  const auto rest = RunTwo(Training("parts", resumed));
  ASSERT_EQ(rest[0].exit_code, 0) << rest[0].output;
  ASSERT_EQ(rest[1].exit_code, 0) << rest[1].output;
  EXPECT_THAT(rest[0].output, HasSubstr("resumed "));
  EXPECT_EQ(Weights("whole"), Weights("parts"));
  EXPECT_EQ(Losses("whole"), Losses("parts"));
}

TEST_F(DistributedTest, AKilledRankEndsTheOther) {
  for (const int killed : {0, 1}) {
    const std::string name = absl::StrCat("killed", killed);
    const Arguments arguments =
        Training(name, {"--epochs", "100000", "--patience", "100000", "--batch-size", "16"});
    const Ranks ranks = StartTwo(arguments, arguments);
    const auto line = ranks[0]->WaitForOutput("epoch   1", kPatience);
    ASSERT_TRUE(line.ok()) << line.status();
    const size_t index = static_cast<size_t>(killed);
    ranks[index]->Signal(SIGKILL);
    const auto results = Finish(ranks);
    EXPECT_EQ(results[index].exit_code, 128 + SIGKILL);
    EXPECT_EQ(results[1 - index].exit_code, 1) << results[1 - index].output;
    EXPECT_THAT(results[1 - index].output,
                HasSubstr(absl::StrCat("error: rank ", 1 - killed, " of 2, ")));
    EXPECT_THAT(results[1 - index].output,
                HasSubstr(absl::StrCat("rank ", killed, " ended or cannot be reached")));
    EXPECT_THAT(results[1 - index].output, HasSubstr("--resume"));
  }
}

TEST_F(DistributedTest, ARankWithOtherFlagsIsNamed) {
  const auto results = Finish(StartTwo(Training("other", {"--epochs", "1"}),
                                       Training("other", {"--epochs", "1", "--seed", "2"})));
  for (const ProgramResult& rank : results) {
    EXPECT_EQ(rank.exit_code, 1) << rank.output;
    EXPECT_THAT(rank.output, HasSubstr("rank 1 is not set to the run of rank 0 (seed: 1 on rank 0, "
                                       "2 on rank 1)"));
  }
  EXPECT_FALSE(FileExists(File("other")));
}

TEST_F(DistributedTest, ASecondProcessOfOneRankIsRefused) {
  const Arguments arguments = Training("twin", {"--epochs", "100000", "--patience", "100000"});
  const auto zero = StartRank(0, arguments);
  const auto one = StartRank(1, arguments);
  const auto line = zero->WaitForOutput("epoch   1", kPatience);
  ASSERT_TRUE(line.ok()) << line.status();
  const auto twin = StartRank(1, arguments);
  EXPECT_EQ(twin->WaitForExit(kPatience).value_or(-1), 1);
  EXPECT_THAT(twin->output(), HasSubstr("RANK: 1 is taken by another process at 127.0.0.1:"));
}

TEST_F(DistributedTest, ABadEnvironmentIsNamedWithItsCure) {
  const auto error = [&](const Arguments& environment, const std::string& timeout = "1s") {
    const auto child =
        Start(environment, Training("bad", {"--epochs", "1", "--group-timeout", timeout}));
    EXPECT_EQ(child->WaitForExit(kPatience).value_or(-1), 1);
    return child->output();
  };
  EXPECT_THAT(error({"RANK=2", "WORLD_SIZE=2"}),
              HasSubstr("RANK: '2' is not a number from 0 to 1"));
  const std::string port = absl::StrCat("MASTER_PORT=", port_.port());
  EXPECT_THAT(
      error({"RANK=1", "WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1", port}),
      HasSubstr(absl::StrCat("rank 0 was not reached at 127.0.0.1:", port_.port(), " within 1s")));
  EXPECT_THAT(error({"RANK=0", "WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1", port}, "10s"),
              HasSubstr("rank 1 did not join at 127.0.0.1:"));
  EXPECT_THAT(error({"RANK=0", "WORLD_SIZE=2", "MASTER_ADDR=no such host", port}),
              HasSubstr("MASTER_ADDR: 'no such host' is no address"));
}

}  // namespace
}  // namespace nestrec
