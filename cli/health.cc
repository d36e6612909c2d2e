// nestrec health: asks a server whether it serves, for probes of containers: exit code 0 or 1.
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "server/health_client.h"

namespace nestrec {
namespace {

struct HealthFlags {
  HealthQuery query;
  std::string timeout = "1s";
};

absl::Status RunHealth(const HealthFlags& flags) {
  HealthQuery query = flags.query;
  if (!absl::ParseDuration(flags.timeout, &query.timeout) ||
      query.timeout < absl::Milliseconds(1) || query.timeout > absl::Hours(1)) {
    return UsageError(absl::InvalidArgumentError(absl::StrCat(
        "--timeout: '", flags.timeout, "' is not a duration from 1ms to 1h, such as 1s or 500ms")));
  }
  NESTREC_RETURN_IF_ERROR(CheckHealth(query));
  std::printf("SERVING\n");
  return absl::OkStatus();
}

}  // namespace

void AddHealthCommand(CLI::App& app, Command* selected) {
  auto flags = std::make_shared<HealthFlags>();
  CLI::App* command = app.add_subcommand(
      "health", "Ask a server whether it serves: exit code 0, else 1 (gRPC health protocol)");
  command->add_option("address", flags->query.address, "host:port of the server")->required();
  command->add_option("--service", flags->query.service,
                      "Service to ask about (default: the server as a whole)");
  command->add_option("--timeout", flags->timeout, "How long the answer may take")
      ->capture_default_str();
  command->callback([flags, selected] { *selected = [flags] { return RunHealth(*flags); }; });
}

}  // namespace nestrec
