// The real program's health, as probes ask for it: `nestrec health`, the health listener, channelz,
// and the line that says how it was started.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/server/raw_rpc.h"
#include "tests/server/serve_program.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kService[] = "nestrec.v1.RecommendService";

// Exit code and output.
std::string Health(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {NESTREC_PROGRAM, "health"});
  auto child = ChildProcess::Start(arguments);
  EXPECT_TRUE(child.ok()) << child.status();
  const auto code = (*child)->WaitForExit();
  return absl::StrCat(code.value_or(-1), " ", (*child)->output());
}

std::shared_ptr<grpc::Channel> ChannelTo(const std::string& address) {
  return grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
}

// The names of the services, one after the other, as the bytes of the answer have them.
RawReply ListServices(const std::string& address) {
  return RawStreamCall(ChannelTo(address),
                       "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                       BytesField(7, ""));
}

TEST(HealthBinary, ExitsWithZeroWhileAServerServes) {
  ServeProgram program({.program = NESTREC_PROGRAM});
  ASSERT_TRUE(program.Start().ok());
  for (const std::string& address : {program.address(), program.health_address()}) {
    EXPECT_EQ(Health({address, "--timeout", "60"}), "0 SERVING\n");
    EXPECT_EQ(Health({address, "--timeout", "60", "--service", kService}), "0 SERVING\n");
    EXPECT_THAT(Health({address, "--timeout", "60", "--service", "other"}),
                StartsWith(absl::StrCat("1 error: ", address, " does not know the service")));
  }
  program.child().Signal(SIGTERM);
  ASSERT_EQ(program.child().WaitForExit().value_or(-1), 0);
  EXPECT_THAT(Health({program.address(), "--timeout", "60"}),
              StartsWith("1 error: no server answers at "));
}

TEST(HealthBinary, RefusesBadFlags) {
  EXPECT_THAT(Health({}), StartsWith("2 "));
  EXPECT_THAT(Health({"127.0.0.1:1", "--timeout", "soon"}), StartsWith("2 error: --timeout: "));
}

TEST(HealthBinary, IsNotServingFromTheSignalToTheEndOfTheDrain) {
  // A request that waits for others for a second keeps the drain from ending at once.
  ServeProgram program({.program = NESTREC_PROGRAM, .more = {"--batch-delay", "1s"}});
  ASSERT_TRUE(program.Start().ok());
  HealthWatch main(ChannelTo(program.address()), kService);
  HealthWatch probe(ChannelTo(program.health_address()), kService);
  EXPECT_EQ(main.Next(), "SERVING");
  EXPECT_EQ(probe.Next(), "SERVING");
  std::thread waiting([&] {
    const auto answer = program.Client().Recommend({});
    EXPECT_TRUE(answer.ok()) << answer.status();
  });
  while (program.Metrics()["nestrec_queued_total{tier=\"gold\"}"] < 1) std::this_thread::yield();
  program.child().Signal(SIGTERM);
  EXPECT_EQ(main.Next(), "NOT_SERVING");
  EXPECT_EQ(probe.Next(), "NOT_SERVING");
  waiting.join();
  EXPECT_EQ(program.child().WaitForExit().value_or(-1), 0);
}

TEST(HealthBinary, TheHealthListenerHasHealthAlone) {
  ServeProgram program({.program = NESTREC_PROGRAM});
  ASSERT_TRUE(program.Start().ok());
  const auto channel = ChannelTo(program.health_address());
  EXPECT_EQ(CheckHealth(channel, ""), "SERVING");
  EXPECT_EQ(
      RawUnaryCall(channel, absl::StrCat("/", kService, "/GetModelInfo"), "").status.error_code(),
      grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(ListServices(program.health_address()).bytes, "");
  EXPECT_THAT(ListServices(program.address()).bytes, HasSubstr(kService));
}

TEST(HealthBinary, ChannelzIsOnItsOwnListenerAndNowhereElse) {
  const TempFolder folder;
  ServeProgram program({.program = NESTREC_PROGRAM,
                        .more = {"--channelz-listen", "127.0.0.1:0", "--channelz-port-file",
                                 folder.File("channelz_port")}});
  ASSERT_TRUE(program.Start().ok());
  const std::string port = ReadFile(folder.File("channelz_port")).value_or("none\n");
  const std::string channelz = absl::StrCat("127.0.0.1:", port.substr(0, port.size() - 1));
  EXPECT_THAT(ListServices(channelz).bytes, HasSubstr("grpc.channelz.v1.Channelz"));
  EXPECT_THAT(ListServices(program.address()).bytes, Not(HasSubstr("channelz")));
  ASSERT_TRUE(program.Client().GetModelInfo().ok());
  // It tells of the servers' listeners, whose addresses are in the answer's bytes.
  const RawReply servers =
      RawUnaryCall(ChannelTo(channelz), "/grpc.channelz.v1.Channelz/GetServers", "");
  ASSERT_TRUE(servers.status.ok()) << servers.status.error_message();
  EXPECT_THAT(servers.bytes, HasSubstr("listener ipv4:127.0.0.1:"));
  for (const std::string& other : {program.address(), program.health_address()}) {
    EXPECT_EQ(RawUnaryCall(ChannelTo(other), "/grpc.channelz.v1.Channelz/GetServers", "")
                  .status.error_code(),
              grpc::StatusCode::UNIMPLEMENTED);
  }
}

TEST(HealthBinary, SaysHowItWasStartedInOneLine) {
  ServeProgram program({.program = NESTREC_PROGRAM, .more = {"--log-format", "json"}});
  ASSERT_TRUE(program.Start().ok());
  const auto line = program.child().WaitForOutput("\"event\":\"configuration\"");
  ASSERT_TRUE(line.ok()) << line.status();
  const auto json = nlohmann::json::parse(*line);
  EXPECT_EQ(json["threads"], "1");
  EXPECT_EQ(json["queue"], "1024");
  EXPECT_EQ(json["log-format"], "json");
  EXPECT_THAT(json["model"].get<std::string>(), HasSubstr("models"));
}

TEST(HealthBinary, ThePasswordInAnAddressIsNotLogged) {
  const std::string model = "none.safetensors";
  auto child =
      ChildProcess::Start({NESTREC_PROGRAM, "serve", "--model", model, "--listen", "127.0.0.1:0",
                           "--redis-password-file", "http://user:secret@host/file"});
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_EQ((*child)->WaitForExit().value_or(-1), 1);
  EXPECT_THAT((*child)->output(), HasSubstr("redis-password-file=http://***@host/file"));
  EXPECT_THAT((*child)->output(), Not(HasSubstr("secret")));
}

}  // namespace
}  // namespace nestrec
