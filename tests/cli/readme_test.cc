// The README's grpcurl transcript, run against a server of the shop that `make demo` uses: with
// grpcurl where it is installed, and always with a reflection client that does the same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "tests/cli/program.h"
#include "tests/cli/reflection_client.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::IsSupersetOf;
using Json = nlohmann::json;

constexpr char kAddress[] = "localhost:50051";

struct Step {
  std::string command;  // without "$ "
  std::string output;
};

// The steps of the README's ```console blocks that call grpcurl. A command goes on over lines that
// end in a backslash.
std::vector<Step> ReadmeSteps() {
  std::vector<Step> steps;
  bool in_block = false;
  bool in_command = false;
  const std::string readme = *ReadFile(absl::StrCat(NESTREC_SOURCE_DIR, "/README.md"));
  for (const absl::string_view line : absl::StrSplit(readme, '\n')) {
    if (absl::StartsWith(line, "```")) {
      in_block = line == "```console";
      continue;
    }
    if (!in_block) continue;
    if (absl::StartsWith(line, "$ ")) {
      steps.push_back({std::string(line.substr(2)), ""});
      in_command = absl::EndsWith(line, "\\");
    } else if (in_command) {
      absl::StrAppend(&steps.back().command, "\n", line);
      in_command = absl::EndsWith(line, "\\");
    } else if (!steps.empty()) {
      absl::StrAppend(&steps.back().output, line, "\n");
    }
  }
  std::erase_if(steps, [](const Step& step) { return !absl::StartsWith(step.command, "grpcurl"); });
  return steps;
}

std::vector<std::string> Lines(const std::string& text) {
  return absl::StrSplit(text, '\n', absl::SkipWhitespace());
}

// "item_id" as "itemId", which is how older releases of grpcurl write it.
std::string CamelCase(const std::string& name) {
  std::string camel;
  for (const char c : name) {
    if (!camel.empty() && camel.back() == '_') {
      camel.back() = absl::ascii_toupper(static_cast<unsigned char>(c));
    } else {
      camel += c;
    }
  }
  return camel;
}

// Everything that `shown` has, `actual` has too: keys, lengths of lists, kinds of values. Scores,
// times and versions differ from run to run.
void ExpectSameShape(const Json& shown, const Json& actual, const std::string& where) {
  ASSERT_EQ(shown.type(), actual.type()) << where;
  if (shown.is_object()) {
    for (const auto& [key, value] : shown.items()) {
      const std::string actual_key = actual.contains(key) ? key : CamelCase(key);
      ASSERT_TRUE(actual.contains(actual_key)) << where << "." << key;
      ExpectSameShape(value, actual[actual_key], absl::StrCat(where, ".", key));
    }
  } else if (shown.is_array()) {
    ASSERT_EQ(shown.size(), actual.size()) << where;
    for (size_t i = 0; i < shown.size(); ++i) {
      ExpectSameShape(shown[i], actual[i], absl::StrCat(where, "[", i, "]"));
    }
  }
}

void ExpectLike(const Step& step, const std::string& actual) {
  if (absl::StartsWith(step.output, "{")) {
    const Json shown = Json::parse(step.output, nullptr, /*allow_exceptions=*/false);
    const Json json = Json::parse(actual, nullptr, /*allow_exceptions=*/false);
    ASSERT_FALSE(shown.is_discarded()) << step.output;
    ASSERT_FALSE(json.is_discarded()) << actual;
    ExpectSameShape(shown, json, "response");
    if (shown.contains("served")) {
      EXPECT_EQ(shown["served"]["dim"], json["served"]["dim"]);
      EXPECT_EQ(shown["served"]["why"], json["served"]["why"]);
    }
  } else {
    EXPECT_THAT(Lines(actual), IsSupersetOf(Lines(step.output))) << step.command;
  }
}

class ReadmeTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(MakeShop(folder_.path(), 3000, 1000).exit_code, 0);
    const std::string model = folder_.File("m.safetensors");
    const ProgramResult trained =
        RunProgram({"train", "--data", folder_.File("data"), "-o", model, "--dim", "128",
                    "--epochs", "1", "--batch-size", "128", "--lr", "2e-3"});
    ASSERT_EQ(trained.exit_code, 0) << trained.output;
    server_ = StartServer(model, folder_.path());
    steps_ = ReadmeSteps();
    ASSERT_GE(steps_.size(), 3u) << "the README shows list, describe and Recommend";
  }
  TempFolder folder_;
  RunningServer server_;
  std::vector<Step> steps_;
};

TEST_F(ReadmeTest, GrpcurlAnswersAsShown) {
  const std::string path =
      absl::StrCat("PATH=$PATH:$HOME/go/bin:$(go env GOPATH 2>/dev/null)/bin; ");
  if (std::system((path + "command -v grpcurl >/dev/null").c_str()) != 0) {
    GTEST_SKIP() << "grpcurl is not installed (go install "
                    "github.com/fullstorydev/grpcurl/cmd/grpcurl@latest)";
  }
  for (const Step& step : steps_) {
    const std::string command =
        path + absl::StrReplaceAll(step.command, {{kAddress, server_.address}}) + " 2>&1";
    std::FILE* pipe = popen(command.c_str(), "r");
    ASSERT_NE(pipe, nullptr);
    std::string output;
    char buffer[4096];
    while (const size_t count = fread(buffer, 1, sizeof(buffer), pipe))
      output.append(buffer, count);
    EXPECT_EQ(pclose(pipe), 0) << step.command << "\n" << output;
    ExpectLike(step, output);
  }
}

TEST_F(ReadmeTest, ReflectionDescribesEveryServiceThatItLists) {
  ReflectionClient client(server_.address);
  const auto services = client.List();
  ASSERT_TRUE(services.ok()) << services.status();
  EXPECT_EQ(services->size(), 3u);
  for (const std::string& service : *services) {
    const auto methods = client.Describe(service);
    ASSERT_TRUE(methods.ok()) << service << ": " << methods.status();
    EXPECT_FALSE(methods->empty()) << service;
  }
  const auto health =
      client.Call("grpc.health.v1.Health/Check", "{\"service\": \"nestrec.v1.RecommendService\"}");
  ASSERT_TRUE(health.ok()) << health.status();
  EXPECT_EQ(Json::parse(*health)["status"], "SERVING");
}

TEST_F(ReadmeTest, AReflectionClientAnswersAsShown) {
  ReflectionClient client(server_.address);
  for (const Step& step : steps_) {
    const std::vector<std::string> words =
        absl::StrSplit(step.command, absl::ByAnyChar(" \n\\"), absl::SkipEmpty());
    if (words.back() == "list") {
      const auto services = client.List();
      ASSERT_TRUE(services.ok()) << services.status();
      ExpectLike(step, absl::StrJoin(*services, "\n"));
    } else if (words[words.size() - 2] == "describe") {
      const auto methods = client.Describe(words.back());
      ASSERT_TRUE(methods.ok()) << methods.status();
      for (const std::string& method : *methods) {
        EXPECT_THAT(step.output, testing::HasSubstr(absl::StrCat("rpc ", method, " ")));
      }
    } else {
      const size_t begin = step.command.find('\'');
      const size_t end = step.command.rfind('\'');
      const std::string json =
          begin == std::string::npos ? "{}" : step.command.substr(begin + 1, end - begin - 1);
      const auto response = client.Call(words.back(), json);
      ASSERT_TRUE(response.ok()) << step.command << "\n" << response.status();
      ExpectLike(step, *response);
    }
  }
}

}  // namespace
}  // namespace nestrec
