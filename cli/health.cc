// nestrec health: asks a server whether it serves, for probes of containers: exit code 0 or 1.
#include <cstdio>
#include <memory>
#include <string>

#include "base/status_macros.h"
#include "cli/client_flags.h"
#include "cli/commands.h"
#include "server/health_client.h"

namespace nestrec {
namespace {

struct HealthFlags {
  ClientFlags client{.timeout_seconds = 1};
  std::string service;
};

absl::Status RunHealth(const HealthFlags& flags) {
  NESTREC_ASSIGN_OR_RETURN(ClientOptions options, ClientOptionsOf(flags.client));
  NESTREC_RETURN_IF_ERROR(CheckHealth(std::move(options), flags.service));
  std::printf("SERVING\n");
  return absl::OkStatus();
}

}  // namespace

void AddHealthCommand(CLI::App& app, Command* selected) {
  auto flags = std::make_shared<HealthFlags>();
  CLI::App* command = app.add_subcommand(
      "health", "Ask a server whether it serves: exit code 0, else 1 (gRPC health protocol)");
  command->add_option("address", flags->client.server, "host:port of the server")->required();
  command->add_option("--service", flags->service,
                      "Service to ask about (default: the server as a whole)");
  command->add_option("--timeout", flags->client.timeout_seconds, "Seconds to wait for the answer")
      ->check(CLI::Range(0.001, 3600.0))
      ->capture_default_str();
  AddCredentialFlags(*command, flags->client.files);
  command->callback([flags, selected] { *selected = [flags] { return RunHealth(*flags); }; });
}

}  // namespace nestrec
