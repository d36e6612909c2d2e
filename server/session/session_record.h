// The bytes of the embedded session log: records, and the frames around them in files.
// docs/session_log_format.md has the layout.
//
// Thread safety: pure functions and plain values.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/session/session_log.h"

namespace nestrec {

// An event_id, hashed: 128 bits, so that two calls of a session never share one by chance.
using CallId = std::array<uint64_t, 2>;
CallId HashCallId(absl::string_view event_id);

struct SessionRecord {
  enum class Type : uint8_t {
    kAppend = 1,  // events of one call
    kForget = 2,  // the session's end
    kWhole = 3,   // in snapshots: all that is kept of a session
    kEnd = 4,     // the end of a snapshot
  };
  Type type = Type::kAppend;
  std::string user_id;
  uint64_t session = 0;
  int64_t first = 0;        // the number of events[0]
  int64_t recorded_ms = 0;  // when, since the Unix epoch
  std::vector<CallId> calls;
  std::vector<SessionEvent> events;
  int64_t count = 0;  // of kEnd: how many records came before

  friend bool operator==(const SessionRecord&, const SessionRecord&) = default;
};

// Appends the record with its frame. `file` and `offset` (where the frame will stand) go into the
// checksum, so that bytes of another place or file are never taken for a record.
void AppendFrame(const SessionRecord& record, uint64_t file, uint64_t offset, std::string& out);

struct SessionFrame {
  SessionRecord record;
  size_t size_bytes;  // with its frame
};
// The record at the beginning of `bytes`; nothing when there is no whole and undamaged one.
std::optional<SessionFrame> ReadFrame(absl::string_view bytes, uint64_t file, uint64_t offset);

// The first `kSessionFileHeaderBytes` of a file.
enum class SessionFileKind { kEvents, kSnapshot };
constexpr size_t kSessionFileHeaderBytes = 32;
std::string SessionFileHeader(SessionFileKind kind, uint64_t number);
// kDataLoss for bytes that are no header of that kind and number, kFailedPrecondition for a format
// version of another release.
absl::Status CheckSessionFileHeader(absl::string_view bytes, SessionFileKind kind, uint64_t number);

}  // namespace nestrec
