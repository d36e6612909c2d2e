// Runs the real `nestrec` program.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/testing/child_process.h"

namespace nestrec {

struct ProgramResult {
  int exit_code;
  std::string output;  // stdout and stderr
};

// To its end.
ProgramResult RunProgram(std::vector<std::string> arguments);
std::unique_ptr<ChildProcess> StartProgram(std::vector<std::string> arguments);

// A small synthetic shop under `folder`: raw files in folder/raw, data folder in folder/data.
ProgramResult MakeShop(const std::string& folder, int users = 300, int items = 120);

// A server of `model` on a free port, with `more` flags, and where it listens.
struct RunningServer {
  std::unique_ptr<ChildProcess> process;
  std::string address;
};
RunningServer StartServer(const std::string& model, const std::string& folder,
                          std::vector<std::string> more = {});

}  // namespace nestrec
