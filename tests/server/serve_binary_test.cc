// The real program: `nestrec serve` and `nestrec recommend`, as an operator runs them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "server/client.h"
#include "tests/server/raw_rpc.h"
#include "tests/testing/child_process.h"
#include "tests/testing/random_model.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class ServeBinary : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "/serve_binary_test." + std::to_string(getpid());
    ASSERT_TRUE(MakeDirectories(folder_).ok());
    model_ = folder_ + "/model.safetensors";
    ASSERT_TRUE(RandomModel({.sizes = {8, 16, 64}}).Write(model_).ok());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static std::unique_ptr<ChildProcess> Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), NESTREC_PROGRAM);
    auto child = ChildProcess::Start(arguments);
    EXPECT_TRUE(child.ok()) << child.status();
    return child.ok() ? *std::move(child) : nullptr;
  }

  // Starts a server on a free port and waits until it serves; address_ is then where.
  std::unique_ptr<ChildProcess> Serve(std::vector<std::string> more = {}) {
    const std::string port_file = folder_ + "/port";
    std::vector<std::string> arguments = {"serve",    "--model",     model_,
                                          "--listen", "127.0.0.1:0", "--threads",
                                          "1",        "--port-file", port_file};
    arguments.insert(arguments.end(), more.begin(), more.end());
    auto child = Run(arguments);
    const auto line = child->WaitForOutput(" serving ");
    EXPECT_TRUE(line.ok()) << line.status();
    const auto port = ReadFile(port_file);
    EXPECT_TRUE(port.ok()) << port.status();
    address_ = absl::StrCat("127.0.0.1:", absl::StripSuffix(port.value_or(""), "\n"));
    EXPECT_THAT(line.value_or(""), HasSubstr(absl::StrCat("address=", address_)));
    return child;
  }

  // Runs to the end; the exit code, with the output in output_.
  int Finish(ChildProcess& child) {
    const auto code = child.WaitForExit();
    EXPECT_TRUE(code.ok()) << code.status();
    output_ = child.output();
    return code.value_or(-1);
  }

  std::string folder_, model_, address_, output_;
};

TEST_F(ServeBinary, ServesAndExitsWithZeroOnSigterm) {
  for (const int signal : {SIGTERM, SIGINT}) {
    auto server = Serve();
    const RecommendClient client({.server = address_, .timeout = absl::Seconds(60)});
    const auto response = client.Recommend({});
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->items_size(), 10);
    EXPECT_EQ(response->served().dim(), 64);
    server->Signal(signal);
    EXPECT_EQ(Finish(*server), 0) << output_;
    EXPECT_THAT(output_, HasSubstr(signal == SIGTERM ? "draining signal=SIGTERM"
                                                     : "draining signal=SIGINT"));
    EXPECT_THAT(output_, HasSubstr("info stopped"));
  }
}

TEST_F(ServeBinary, ASecondServerOnThePortFailsAndTheFirstServesOn) {
  auto first = Serve();
  auto second = Run({"serve", "--model", model_, "--listen", address_});
  EXPECT_EQ(Finish(*second), 1);
  EXPECT_THAT(output_, HasSubstr(absl::StrCat("error: cannot listen on ", address_,
                                              ": the port is in use")));
  const RecommendClient client({.server = address_, .timeout = absl::Seconds(60)});
  EXPECT_TRUE(client.Recommend({}).ok());
}

TEST_F(ServeBinary, ATakenPortIsNamedBeforeTheModelIsLoaded) {
  auto first = Serve();
  auto second = Run({"serve", "--model", folder_ + "/none.safetensors", "--listen", address_});
  EXPECT_EQ(Finish(*second), 1);
  EXPECT_THAT(output_, HasSubstr("the port is in use"));
  EXPECT_THAT(output_, Not(HasSubstr("none.safetensors")));
}

TEST_F(ServeBinary, NamesAModelThatIsMissing) {
  auto child = Run({"serve", "--model", folder_ + "/none.safetensors", "--listen", "127.0.0.1:0"});
  EXPECT_EQ(Finish(*child), 1);
  EXPECT_THAT(output_, HasSubstr("error: "));
  EXPECT_THAT(output_, HasSubstr("none.safetensors"));
}

TEST_F(ServeBinary, RefusesADamagedModel) {
  const std::string bytes = *ReadFile(model_);
  for (const double place : {0.0, 0.3, 0.6, 0.99}) {
    std::string damaged = bytes;
    damaged[static_cast<size_t>(place * static_cast<double>(bytes.size()))] ^= 0x10;
    ASSERT_TRUE(WriteFileAtomically(folder_ + "/damaged", damaged).ok());
    auto child = Run({"serve", "--model", folder_ + "/damaged", "--listen", "127.0.0.1:0"});
    EXPECT_EQ(Finish(*child), 1);
    EXPECT_THAT(output_, HasSubstr("error: "));
    EXPECT_THAT(output_, Not(HasSubstr(" serving ")));
  }
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/damaged", bytes.substr(0, bytes.size() / 2)).ok());
  auto child = Run({"serve", "--model", folder_ + "/damaged", "--listen", "127.0.0.1:0"});
  EXPECT_EQ(Finish(*child), 1);
}

TEST_F(ServeBinary, ReadsItsTiersFromAConfigFile) {
  const std::string config = folder_ + "/tiers.textproto";
  ASSERT_TRUE(
      WriteFileAtomically(config, "tiers { name: \"only\" dim: 16 index: \"HNSW16\" }\n").ok());
  auto server = Serve({"--config", config, "--max-dim", "16"});
  const RecommendClient client({.server = address_, .timeout = absl::Seconds(60)});
  const auto info = client.GetModelInfo();
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->sizes_size(), 2);
  EXPECT_EQ(info->default_tier(), "only");
}

TEST_F(ServeBinary, RefusesABadConfigFile) {
  const std::string config = folder_ + "/tiers.textproto";
  ASSERT_TRUE(WriteFileAtomically(config, "tiers {\n name: \"a\"\n dimm: 16 }\n").ok());
  auto child = Run({"serve", "--model", model_, "--listen", "127.0.0.1:0", "--config", config});
  EXPECT_EQ(Finish(*child), 1);
  EXPECT_THAT(output_, HasSubstr("tiers.textproto:3:"));
  for (const char* text : {"default_tier: \"platinum\"", "tiers { name: \"a\" dim: 17 }",
                           "tiers { name: \"a\n\" dim: 8 }",
                           "tiers { name: \"a\" dim: 8 index: \"Flatt\" }", "\xf6\x1b"}) {
    ASSERT_TRUE(WriteFileAtomically(config, text).ok());
    child = Run({"serve", "--model", model_, "--listen", "127.0.0.1:0", "--config", config});
    EXPECT_EQ(Finish(*child), 1);
    EXPECT_THAT(output_, HasSubstr(absl::StrCat("error: ", config, ":"))) << text;
    EXPECT_THAT(output_, Not(HasSubstr("\x1b")));
    EXPECT_THAT(output_, Not(HasSubstr("\xf6")));
  }
  child = Run({"serve", "--model", model_, "--listen", "127.0.0.1:0", "--config", "/dev/zero"});
  EXPECT_EQ(Finish(*child), 1);
  EXPECT_THAT(output_, HasSubstr("/dev/zero has more than 1048576 bytes"));
}

TEST_F(ServeBinary, AnEmptyConfigFileMeansTheDefaultTiers) {
  const std::string config = folder_ + "/tiers.textproto";
  ASSERT_TRUE(WriteFileAtomically(config, "# none yet\n").ok());
  auto server = Serve({"--config", config});
  const RecommendClient client({.server = address_, .timeout = absl::Seconds(60)});
  const auto info = client.GetModelInfo();
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->tiers_size(), 2);
  EXPECT_EQ(info->default_tier(), "gold");
}

TEST_F(ServeBinary, RefusesBadFlags) {
  EXPECT_EQ(Finish(*Run({"serve"})), 2);
  EXPECT_EQ(Finish(*Run({"serve", "--model", model_, "--queue", "0"})), 2);
  for (const char* grace : {"soon", "inf", "-1s", "25h"}) {
    EXPECT_EQ(Finish(*Run({"serve", "--model", model_, "--grace", grace})), 2);
    EXPECT_THAT(output_, HasSubstr(absl::StrCat("error: --grace: '", grace,
                                                "' is not a duration from 0 to 24h")));
  }
  EXPECT_EQ(Finish(*Run({"serve", "--model", model_, "--listen", "nowhere"})), 2);
  EXPECT_THAT(output_, HasSubstr("--listen: \"nowhere\" is not an address"));
  EXPECT_EQ(
      Finish(*Run({"serve", "--model", model_, "--listen", "127.0.0.1:0", "--max-dim", "17"})), 1);
  EXPECT_THAT(output_, HasSubstr("8,16,64"));
  for (const char* dim : {"0", "-3", "99999999999999999999"}) {
    EXPECT_EQ(Finish(*Run({"serve", "--model", model_, "--max-dim", dim})), 2);
    EXPECT_THAT(output_, HasSubstr(absl::StrCat("error: --max-dim: ", dim, " is outside 2 to")));
  }
  for (const char* flag : {"--config", "--port-file", "--listen"}) {
    EXPECT_EQ(Finish(*Run({"serve", "--model", model_, flag, ""})), 2);
    EXPECT_THAT(output_, HasSubstr(absl::StrCat("error: ", flag, ": is empty")));
  }
}

TEST_F(ServeBinary, FailsWhenThePortFileCannotBeWritten) {
  auto child = Run(
      {"serve", "--model", model_, "--listen", "127.0.0.1:0", "--port-file", "/proc/no/such/port"});
  EXPECT_EQ(Finish(*child), 1);
  EXPECT_THAT(output_, HasSubstr("/proc/no/such"));
}

TEST_F(ServeBinary, TheClientPrintsATable) {
  auto server = Serve();
  EXPECT_EQ(
      Finish(*Run({"recommend", "--server", address_, "--history",
                   "item-1, item 2 with spaces,品目-3,gone", "--k", "5", "--tier", "silver"})),
      0);
  EXPECT_THAT(output_, HasSubstr("rank"));
  EXPECT_THAT(output_, HasSubstr("Title "));
  EXPECT_THAT(output_, HasSubstr("5 items at dim 16 (tier silver), exact"));
  EXPECT_THAT(output_, HasSubstr("not in the catalogue, skipped: 1 of the history (gone)"));
}

TEST_F(ServeBinary, TheClientComparesTheWidths) {
  auto server = Serve();
  EXPECT_EQ(Finish(*Run({"recommend", "--server", address_, "--history", "item-1", "--compare"})),
            0);
  EXPECT_THAT(output_, HasSubstr("dim 8 "));
  EXPECT_THAT(output_, HasSubstr("dim 64"));
  EXPECT_THAT(output_, HasSubstr("10 of 10"));
  EXPECT_THAT(output_, HasSubstr("0.0640"));
}

TEST_F(ServeBinary, TheClientPrintsJson) {
  auto server = Serve();
  EXPECT_EQ(Finish(*Run({"recommend", "--server", address_, "--k", "2", "--json"})), 0);
  EXPECT_THAT(output_, HasSubstr("\"itemId\": "));
  EXPECT_THAT(output_, HasSubstr("\"modelVersion\": "));
}

TEST_F(ServeBinary, TheClientPassesOnTheServersReasons) {
  auto server = Serve();
  EXPECT_EQ(Finish(*Run({"recommend", "--server", address_, "--k", "0"})), 1);
  EXPECT_THAT(output_, HasSubstr("error: k: 0 is not in 1 to 1000"));
  EXPECT_EQ(Finish(*Run({"recommend", "--server", address_, "--dim", "17"})), 1);
  EXPECT_THAT(output_, HasSubstr("8,16,64"));
  EXPECT_EQ(Finish(*Run({"recommend", "--server", address_, "--dim", "8", "--tier", "gold"})), 2);
}

TEST_F(ServeBinary, TheClientRefusesWhatIsNotUtf8) {
  for (const char* flag : {"--history", "--exclude", "--tier"}) {
    EXPECT_EQ(Finish(*Run({"recommend", "--server", "127.0.0.1:1", flag, "a,caf\xe9"})), 2);
    EXPECT_THAT(output_,
                HasSubstr(absl::StrCat("error: ", flag, ": not valid UTF-8: 'a,caf\\xe9'")));
    EXPECT_THAT(output_, Not(HasSubstr("protobuf")));
  }
  const std::string ids = folder_ + "/ids";
  ASSERT_TRUE(WriteFileAtomically(ids, "a\n\xff\n").ok());
  EXPECT_EQ(Finish(*Run({"recommend", "--server", "127.0.0.1:1", "--history-file", ids})), 1);
  EXPECT_THAT(output_, HasSubstr(absl::StrCat("error: ", ids, ":2: not valid UTF-8: '\\xff'")));
}

TEST_F(ServeBinary, IdsWithCommasComeFromAFile) {
  auto server = Serve();
  const std::string ids = folder_ + "/ids";
  ASSERT_TRUE(WriteFileAtomically(ids, "item-1\n\none, with comma\r\n 品目-3 \n").ok());
  EXPECT_EQ(Finish(*Run(
                {"recommend", "--server", address_, "--history-file", ids, "--exclude-file", ids})),
            0);
  EXPECT_THAT(output_, HasSubstr("skipped: 1 of the history (one, with comma)"));
  EXPECT_THAT(output_, HasSubstr("skipped: 1 excluded (one, with comma)"));
  EXPECT_EQ(Finish(*Run({"recommend", "--history", "a", "--history-file", ids})), 2);
  EXPECT_EQ(Finish(*Run({"recommend", "--history-file", folder_ + "/none"})), 1);
  EXPECT_THAT(output_, HasSubstr("/none"));
}

TEST_F(ServeBinary, TheClientSaysHowToStartAServer) {
  {
    auto server = Serve();
    server->Signal(SIGTERM);
    ASSERT_EQ(Finish(*server), 0);
  }
  EXPECT_EQ(Finish(*Run({"recommend", "--server", address_})), 1);
  EXPECT_THAT(output_, HasSubstr(absl::StrCat("no server answers at ", address_)));
  EXPECT_THAT(output_, HasSubstr("nestrec serve --model"));
}

}  // namespace
}  // namespace nestrec
