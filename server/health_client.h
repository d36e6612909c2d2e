// Asks a server for its health, by the gRPC health protocol (grpc.health.v1).
//
// Thread safety: pure but for the network.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace nestrec {

struct HealthQuery {
  std::string address;  // host:port, in plain text
  std::string service;  // empty: the server as a whole
  absl::Duration timeout = absl::Seconds(1);
};

// Ok: SERVING. kUnavailable: NOT_SERVING, or nobody answers; kNotFound: the server does not know
// the service; kUnimplemented: it has no health service; kDeadlineExceeded. The message says which.
absl::Status CheckHealth(const HealthQuery& query);

}  // namespace nestrec
