#include "cli/client_flags.h"

#include "absl/time/time.h"
#include "base/status_macros.h"

namespace nestrec {

void AddCredentialFlags(CLI::App& command, ClientFiles& files) {
  command.add_flag("--tls", files.tls, "The server speaks TLS");
  command.add_option("--tls-ca", files.authorities,
                     "Authorities that sign for the server, PEM (default: the system's)");
  command.add_option("--tls-cert", files.certificate, "Certificate to show to the server, PEM");
  command.add_option("--tls-key", files.key, "Its key, PEM");
  command.add_option("--token-file", files.token,
                     "Holds the bearer token (default: the environment's NESTREC_TOKEN)");
}

void AddClientFlags(CLI::App& command, ClientFlags& flags) {
  command.add_option("--server", flags.server, "host:port of the server")->capture_default_str();
  command.add_option("--timeout", flags.timeout_seconds, "Seconds to wait for the answer")
      ->check(CLI::Range(0.001, 3600.0))
      ->capture_default_str();
  AddCredentialFlags(command, flags.files);
}

absl::StatusOr<ClientOptions> ClientOptionsOf(const ClientFlags& flags) {
  NESTREC_ASSIGN_OR_RETURN(ClientCredentials credentials, ReadClientCredentials(flags.files));
  return ClientOptions{.server = flags.server,
                       .timeout = absl::Seconds(flags.timeout_seconds),
                       .credentials = std::move(credentials)};
}

}  // namespace nestrec
