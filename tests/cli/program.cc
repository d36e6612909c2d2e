#include "tests/cli/program.h"

#include <gtest/gtest.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"

namespace nestrec {

std::unique_ptr<ChildProcess> StartProgram(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), NESTREC_PROGRAM);
  auto child = ChildProcess::Start(arguments);
  EXPECT_TRUE(child.ok()) << child.status();
  return child.ok() ? *std::move(child) : nullptr;
}

ProgramResult RunProgram(std::vector<std::string> arguments) {
  const auto child = StartProgram(std::move(arguments));
  const auto code = child->WaitForExit(absl::Seconds(240));
  EXPECT_TRUE(code.ok()) << code.status();
  return {code.value_or(-1), child->output()};
}

ProgramResult MakeShop(const std::string& folder, int users, int items) {
  const std::string raw = folder + "/raw";
  const ProgramResult made = RunProgram(
      {"make-shop", "--out", raw, "--users", absl::StrCat(users), "--items", absl::StrCat(items)});
  EXPECT_EQ(made.exit_code, 0) << made.output;
  return RunProgram({"prepare", "--events", raw + "/events.csv", "--catalogue",
                     raw + "/catalogue.jsonl", "--out", folder + "/data", "--text-width", "32"});
}

RunningServer StartServer(const std::string& model, const std::string& folder,
                          std::vector<std::string> more) {
  RunningServer server;
  const std::string port_file = folder + "/port";
  std::vector<std::string> arguments = {"serve",    "--model",     model,
                                        "--listen", "127.0.0.1:0", "--threads",
                                        "1",        "--port-file", port_file};
  arguments.insert(arguments.end(), more.begin(), more.end());
  server.process = StartProgram(std::move(arguments));
  const auto line = server.process->WaitForOutput(" serving ");
  EXPECT_TRUE(line.ok()) << line.status();
  const auto port = ReadFile(port_file);
  EXPECT_TRUE(port.ok()) << port.status();
  server.address = absl::StrCat("127.0.0.1:", absl::StripAsciiWhitespace(port.value_or("")));
  return server;
}

}  // namespace nestrec
