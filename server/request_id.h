// What tells calls apart in logs: ids that clients send with them, or that are made here.
//
// Thread safety: pure functions, but for NewRequestId, which may be called from any thread.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace nestrec {

constexpr size_t kMaxRequestIdBytes = 128;

// Whether a client's id may stand in logs and answers: 1 to kMaxRequestIdBytes letters, digits and
// "-_.:/+=@".
bool IsSaneRequestId(absl::string_view id);

// 32 hex digits that no other call has.
std::string NewRequestId();

// The trace id, 32 hex digits, of a traceparent header (W3C Trace Context, version 00 or later):
// "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01". Empty for anything else.
std::string TraceIdOf(absl::string_view traceparent);

}  // namespace nestrec
