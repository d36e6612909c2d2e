// A session as bytes: the value that a session log in Redis keeps under a user's key, and the
// scripts that change it there. docs/session_log_format.md has the layout.
//
// One string a user costs about what it holds. A stream, which it was before, takes 4 KiB for a
// first event.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/session/session_log.h"
#include "server/session/session_record.h"

namespace nestrec {

// Of the value, in front of calls and events.
constexpr size_t kRedisRecordHeaderBytes = 20;

// 8 bytes, lowest first.
std::string PackSessionNumber(uint64_t session);
// 16 bytes, the high half first, each half highest byte first: as its 32 hex digits read.
std::string PackCallId(const CallId& call);
// As they follow one another in the value. REQUIRES: ids of at most 65,527 bytes.
std::string PackSessionEvents(std::span<const SessionEvent> events);

// The newest `limit` events of a value. kDataLoss for bytes that are none, kFailedPrecondition for
// those of another release.
absl::StatusOr<SessionTail> ParseRedisRecord(absl::string_view value, int64_t limit);
absl::StatusOr<uint64_t> ParseSessionNumber(absl::string_view bytes);

// Appends a call's events to the value, all or none, and says {session, events that it ever had,
// whether the call was known}. WRONGTYPE where the key holds no string.
//   KEYS[1]  the user's log
//   ARGV[1]  the session's number, should it begin now, packed
//   ARGV[2]  how many events are kept
//   ARGV[3]  ms until the session expires; 0: never
//   ARGV[4]  the call's id, packed
//   ARGV[5]  how many calls are remembered
//   ARGV[6]  how many events the call has
//   ARGV[7]  how many of them, the newest, follow in
//   ARGV[8]  packed
extern const char kAppendToRedisRecord[];

// Turns a log of the layout before (a stream of events, and a sorted set of calls as KEYS[2]) into
// a value of this one, with the session number ARGV[1], packed, and says 1; 0 where the key holds
// nothing or a string. An error where it holds something else.
extern const char kStreamToRedisRecord[];

}  // namespace nestrec
