// Asks a server for its health, by the gRPC health protocol (grpc.health.v1).
//
// Thread safety: pure but for the network.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "server/client_channel.h"

namespace nestrec {

// Ok: `service` is SERVING; an empty one is the server as a whole. kUnavailable: NOT_SERVING, or
// nobody answers; kNotFound: the server does not know the service; kUnimplemented: it has no health
// service; kDeadlineExceeded. The message says which.
absl::Status CheckHealth(ClientOptions options, const std::string& service);

}  // namespace nestrec
