// Where a Redis Cluster keeps a key, as its specification has it: a key belongs to one of 16384
// slots, a slot to one node; who asks another node is sent on.
//
// Thread safety: pure functions.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/session/redis_connection.h"

namespace nestrec {

// CRC-16/XMODEM of the key, or of what stands in its first braces if that is not empty, modulo
// 16384.
int RedisSlot(absl::string_view key);

// The node that an answer of `from` ("127.0.0.1:7001", ":7001", "::1:7001") names, to be spoken to
// as `from` is. kUnavailable for what is no address: a cluster that does not know its own yet.
absl::StatusOr<RedisAddress> RedisNodeAddress(absl::string_view node, const RedisAddress& from);

}  // namespace nestrec
