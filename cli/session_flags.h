// The flags of `serve` that say where sessions are kept.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "server/session/session_options.h"

namespace nestrec {

struct SessionFlags {
  SessionOptions options;
  std::string ttl = "0s";
  std::string sync = "process";
  std::string redis_timeout = "250ms";
};

void AddSessionFlags(CLI::App& command, SessionFlags& flags);

// A usage error, naming the flag, for a value that is none or that does not go with the others.
absl::StatusOr<SessionOptions> SessionOptionsOf(const SessionFlags& flags);

}  // namespace nestrec
