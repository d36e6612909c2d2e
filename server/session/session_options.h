// Where a server keeps its sessions, as an operator says it.
//
// Thread safety: pure functions but for OpenSessions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/log.h"
#include "server/session/embedded_log.h"
#include "server/session/session_manager.h"

namespace nestrec {

struct SessionOptions {
  // "none", "redis://host:6379/0", "unix:///run/redis.sock", or a folder.
  std::string store = "none";
  int64_t events = 200;                       // of a session that are kept
  size_t log_bytes = size_t{1} << 30;         // of memory for logs, in a folder's store
  size_t state_bytes = size_t{256} << 20;     // of memory for states
  absl::Duration ttl = absl::ZeroDuration();  // since a session's last event; 0: for ever
  EmbeddedSessionLog::Sync sync = EmbeddedSessionLog::Sync::kProcess;
  std::string redis_password_file;
  absl::Duration redis_timeout = absl::Milliseconds(250);
};

bool KeepsSessions(const SessionOptions& options);

// kInvalidArgument for a Redis address that is none, an empty store, or a number of events outside
// 1..EmbeddedSessionLog::kMaxEventsPerSession. Touches neither disk nor network.
absl::Status CheckSessionOptions(const SessionOptions& options);

// kInvalidArgument where fewer events are kept than a model reads: answers would differ from those
// of the whole history.
absl::Status CheckSessionsFit(const SessionOptions& options, int max_len);

// Errors of CheckSessionOptions, EmbeddedSessionLog::Open and RedisConnection::Connect: a Redis
// that does not answer at the start is most likely a wrong address. REQUIRES:
// KeepsSessions(options).
absl::StatusOr<std::unique_ptr<SessionManager>> OpenSessions(const SessionOptions& options,
                                                             const Log& log);

}  // namespace nestrec
