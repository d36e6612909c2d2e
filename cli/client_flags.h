// The flags of every subcommand that asks a server: where it is, and who asks.
//
// Not thread-safe.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "server/client_channel.h"

namespace nestrec {

struct ClientFlags {
  std::string server = ClientOptions().server;
  double timeout_seconds = 10;
  ClientFiles files;
};

// --tls, --tls-ca, --tls-cert, --tls-key, --token-file.
void AddCredentialFlags(CLI::App& command, ClientFiles& files);

// --server, --timeout, --tls, --tls-ca, --tls-cert, --tls-key, --token-file.
void AddClientFlags(CLI::App& command, ClientFlags& flags);

// Errors of ReadClientCredentials.
absl::StatusOr<ClientOptions> ClientOptionsOf(const ClientFlags& flags);

}  // namespace nestrec
