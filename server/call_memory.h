// How much memory clients' connections and unfinished messages may take together: the size of the
// quota that gRPC keeps for all listeners of a server.
//
// gRPC receives a message whole before anybody sees the call, so this alone bounds what clients can
// have a server hold without a token. Beyond it gRPC ends calls, and closes connections that have
// none, until it fits again.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/memory_limits.h"

namespace nestrec {

// Room for the connections of some thousand clients.
inline constexpr int64_t kLeastCallMemory = int64_t{32} << 20;
// What "auto" takes where memory is no matter: 10,000 idle connections take about half of it.
inline constexpr int64_t kAmpleCallMemory = int64_t{256} << 20;

// Bytes, from the text of --max-call-memory: "auto", an eighth of the smallest limit of memory that
// holds for the process, between the two figures above and not less than two messages; or a number.
// kInvalidArgument for what is neither, or a number below kLeastCallMemory or two messages.
absl::StatusOr<int64_t> CallMemoryOf(absl::string_view text, int64_t max_message_bytes,
                                     const std::vector<MemoryLimit>& limits);

}  // namespace nestrec
