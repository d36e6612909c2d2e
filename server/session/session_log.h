// The log of sessions: what users did, in the order in which it was recorded. It is the truth; what
// models remember of a session is computed from it.
//
// A session begins with a user's first event and ends when it is forgotten, expires or makes room
// for others; the user's next event begins another one, with another number. Of a session the
// newest events are kept, and how many there ever were.
//
// Items are external ids, since item numbers belong to a model's catalogue.
//
// Thread safety: all methods may be called from any thread. They may wait for a disk or a network.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace nestrec {

struct SessionEvent {
  std::string item_id;
  absl::Time time;  // whole milliseconds are kept

  friend bool operator==(const SessionEvent&, const SessionEvent&) = default;
};

struct SessionTail {
  uint64_t session = 0;              // which one; 0: the user has none
  int64_t end = 0;                   // how many events it ever had
  std::vector<SessionEvent> events;  // the newest, oldest first
};

struct SessionAppended {
  uint64_t session = 0;
  int64_t end = 0;         // how many events it has had now
  bool duplicate = false;  // event_id was known: nothing was appended
};

struct SessionLogStats {
  int64_t sessions = 0;  // 0 where the store cannot say
  int64_t bytes = 0;     // of memory
  int64_t evicted = 0;   // sessions that made room for others
  int64_t expired = 0;
  // Of the store: writes to the folder's files, calls of Redis.
  int64_t operations = 0;
  int64_t errors = 0;      // of them
  absl::Duration time;     // that they took
  int64_t file_bytes = 0;  // on disk; 0 where the store cannot say
};

// Counts what a store does.
//
// Thread safety: all methods may be called from any thread. Counts alone: any order will do.
class SessionLogCounter {
 public:
  void Count(bool ok, absl::Duration took) {
    operations_ += 1;
    errors_ += ok ? 0 : 1;
    nanoseconds_ += absl::ToInt64Nanoseconds(took);
  }
  void WriteTo(SessionLogStats& stats) const {
    stats.operations = operations_;
    stats.errors = errors_;
    stats.time = absl::Nanoseconds(nanoseconds_.load());
  }

 private:
  std::atomic<int64_t> operations_{0}, errors_{0}, nanoseconds_{0};
};

class SessionLog {
 public:
  // Calls of one session that are told apart by their event_id: the newest.
  static constexpr size_t kRememberedCalls = 64;

  virtual ~SessionLog() = default;

  // Appends `events` in their order, all or none. With an event_id that one of the session's last
  // kRememberedCalls calls had, appends nothing and says so; an empty one is never known. When it
  // returns ok, the events are as safe as the store promises. After an error they may or may not be
  // there: a call with the same event_id finds out.
  // kUnavailable: the store does not answer; kResourceExhausted: it is full.
  virtual absl::StatusOr<SessionAppended> Append(absl::string_view user_id,
                                                 std::span<const SessionEvent> events,
                                                 absl::string_view event_id) = 0;

  // The newest `limit` events.
  virtual absl::StatusOr<SessionTail> Read(absl::string_view user_id, int64_t limit) = 0;

  // Ends the user's session; false when there was none.
  virtual absl::StatusOr<bool> Forget(absl::string_view user_id) = 0;

  // Whether Read may wait for a network.
  virtual bool remote() const = 0;
  virtual SessionLogStats stats() const = 0;
  // What one user's session takes in this process's memory.
  virtual size_t BytesOf(absl::string_view user_id) const = 0;
  // For people: where it is.
  virtual std::string name() const = 0;
};

}  // namespace nestrec
