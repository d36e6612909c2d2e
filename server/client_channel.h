// One connection to a nestrec server for programs of ours: TLS and token where they are asked for,
// and errors that say what to do.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace grpc {
class Channel;
class ClientContext;
class Status;
}  // namespace grpc

namespace nestrec {

// What the files hold. Of a server without TLS nothing is needed.
struct ClientCredentials {
  bool tls = false;
  std::string authorities;       // PEM; empty with tls: those of the system
  std::string certificate, key;  // PEM, for a server that asks for them
  std::string token;             // empty: none
};

// Paths; empty: none.
struct ClientFiles {
  bool tls = false;  // also without a file of authorities
  std::string authorities, certificate, key;
  std::string token;  // holds the token alone
};

// Errors of ReadFile. kInvalidArgument for a certificate without a key or a key without one, and
// for a token with characters that metadata cannot have. The token of the environment's
// NESTREC_TOKEN where no file is named.
absl::StatusOr<ClientCredentials> ReadClientCredentials(const ClientFiles& files);

struct ClientOptions {
  std::string server = "127.0.0.1:50051";
  absl::Duration timeout = absl::Seconds(10);  // of one call, connecting included
  ClientCredentials credentials;
};

class ClientChannel {
 public:
  // Does not connect yet.
  explicit ClientChannel(ClientOptions options);

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  // With the deadline and the token.
  std::unique_ptr<grpc::ClientContext> NewContext() const;
  // The server's error, or kUnavailable, naming the address and how to start a server, when none
  // answers there.
  absl::Status Explain(const grpc::Status& status) const;

 private:
  const ClientOptions options_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace nestrec
