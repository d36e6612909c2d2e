// Addresses to listen on. gRPC says no more than that binding failed; this finds out why, before
// gRPC tries.
//
// Thread safety: pure but for the operating system.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace nestrec {

struct ListenAddress {
  std::string host;  // without brackets
  int port = 0;

  // "127.0.0.1:50051", "[::1]:50051", "localhost:0", ":50051" (all interfaces). kInvalidArgument
  // for anything else.
  static absl::StatusOr<ListenAddress> Parse(const std::string& text);
  // As gRPC takes it.
  std::string ToString() const;
};

// Binds and releases every address that `address` resolves to. kInvalidArgument: it does not
// resolve. kUnavailable: taken, or not of this machine. kPermissionDenied: no right to. Ok for port
// 0 where the host can be bound.
absl::Status CheckCanListen(const ListenAddress& address);

}  // namespace nestrec
