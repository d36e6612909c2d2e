// `nestrec bench load` against the real server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "server/client.h"
#include "tests/cli/program.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

class BenchLoad : public testing::Test {
 protected:
  void SetUp() override {
    model_ = folder_.File("model.safetensors");
    ASSERT_TRUE(RandomModel({.sizes = {8, 16, 64}}).Write(model_).ok());
    server_.process =
        StartProgram({"serve", "--model", model_, "--listen", "127.0.0.1:0", "--threads", "1",
                      "--port-file", folder_.File("port"), "--sessions", folder_.File("sessions")});
    const auto line = server_.process->WaitForOutput(" serving ");
    ASSERT_TRUE(line.ok()) << line.status();
    server_.address = line->substr(line->find("address=") + 8);
    server_.address = server_.address.substr(0, server_.address.find(' '));
  }

  ProgramResult Load(std::vector<std::string> more) {
    std::vector<std::string> arguments = {"bench", "load", "--server", server_.address};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunProgram(arguments);
  }
  // Short, and generous to a busy machine.
  std::vector<Json> LoadJson(std::vector<std::string> more) {
    more.insert(more.end(), {"--json", "--warmup", "0s", "--deadline", "60s"});
    const ProgramResult result = Load(more);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    std::vector<Json> rows;
    for (const auto line : absl::StrSplit(result.output, '\n', absl::SkipWhitespace())) {
      rows.push_back(Json::parse(std::string(line), nullptr, /*allow_exceptions=*/false));
      EXPECT_FALSE(rows.back().is_discarded()) << line;
    }
    return rows;
  }

  TempFolder folder_;
  std::string model_;
  RunningServer server_;
};

TEST_F(BenchLoad, EveryCallOfARunIsAccountedFor) {
  for (const std::vector<std::string>& source :
       std::vector<std::vector<std::string>>{{}, {"--model", model_}}) {
    std::vector<std::string> flags = {"--rate",   "100",   "--duration", "300ms",     "--arrivals",
                                      "constant", "--dim", "16",         "--history", "5"};
    flags.insert(flags.end(), source.begin(), source.end());
    const std::vector<Json> rows = LoadJson(flags);
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0]["answered"], 30);
    EXPECT_EQ(rows[0]["offered_per_second"], 100.0);
    EXPECT_EQ(rows[0]["goodput_per_second"], 100.0);
    EXPECT_EQ(rows[0]["dims"], Json({{"16", 30}}));
    EXPECT_TRUE(rows[0]["errors"].empty());
    EXPECT_LE(rows[0]["latency_ms"]["p50"], rows[0]["latency_ms"]["p99"]);
    EXPECT_GT(rows[0]["latency_ms"]["p50"], 0);
  }
}

TEST_F(BenchLoad, TheTableNamesWhatWasMeasured) {
  const ProgramResult result = Load({"--rpc", "info", "--rate", "50", "--duration", "200ms",
                                     "--warmup", "0s", "--deadline", "60s"});
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("GetModelInfo; poisson arrivals for 200ms"));
  EXPECT_THAT(result.output, HasSubstr("p99.9 ms"));
}

TEST_F(BenchLoad, SessionsAreFilledAskedAndForgotten) {
  const std::vector<Json> rows = LoadJson(
      {"--users", "5", "--history", "8", "--rate", "100", "--duration", "200ms", "--tier", "gold"});
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_TRUE(rows[0]["errors"].empty()) << rows[0];
  EXPECT_GT(rows[0]["answered"], 0);
  const RecommendClient client({.server = server_.address, .timeout = absl::Seconds(60)});
  v1::ForgetUserRequest forget;
  forget.set_user_id("bench-load-0");
  EXPECT_FALSE(client.ForgetUser(forget)->existed());
}

TEST_F(BenchLoad, ASweepEndsWithWhatTheServerSustains) {
  const std::vector<Json> rows =
      LoadJson({"--sweep", "--rate", "2000", "--duration", "100ms", "--within", "1ms"});
  ASSERT_GE(rows.size(), 2u);
  EXPECT_TRUE(rows.back().contains("sustained_per_second")) << rows.back();
  double best = 0;
  for (const Json& row : rows) {
    if (row.contains("goodput_per_second")) {
      best = std::max(best, row["goodput_per_second"].get<double>());
    }
  }
  EXPECT_GE(rows.back()["peak_goodput_per_second"].get<double>(), 0.5 * best);
}

TEST_F(BenchLoad, NamesWhatIsWrong) {
  struct Case {
    std::vector<std::string> flags;
    int exit_code;
    std::string message;
  };
  for (const Case& c : std::vector<Case>{
           {{"--duration", "soon"}, 2, "--duration: 'soon' is not a duration from 100ms to 24h"},
           {{"--rate", "0"}, 2, "--rate"},
           {{"--rate", "1000000", "--duration", "1h"}, 2, "give a shorter --duration"},
           {{"--rpc", "delete"}, 2, "--rpc"},
           {{"--dim", "8", "--tier", "gold"}, 2, "--dim"},
           {{"--connections", "0"}, 2, "--connections"},
           {{"--dim", "17"}, 1, "17"},
           {{"--tier", "platinum"}, 1, "platinum"},
           {{"--model", folder_.File("none")}, 1, "none"},
           {{"--data", folder_.File("none")}, 1, "none"}}) {
    const ProgramResult result = Load(c.flags);
    EXPECT_EQ(result.exit_code, c.exit_code) << result.output;
    EXPECT_THAT(result.output, HasSubstr(c.message));
  }
  server_.process->Signal(SIGTERM);
  ASSERT_TRUE(server_.process->WaitForExit().ok());
  const ProgramResult result = Load({});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.output, HasSubstr("no server answers at "));
}

}  // namespace
}  // namespace nestrec
