// A session log in this process: sessions in memory, every change in a file of events before it is
// acknowledged, and snapshots that take the place of old files. docs/session_log_format.md has the
// bytes.
//
//   NESTREC_ASSIGN_OR_RETURN(auto log, EmbeddedSessionLog::Open({.folder = "sessions"}));
//   log->Append("user 7", events, "call 1");
//
// What is acknowledged survives the death of the process; with Sync::kDisk that of the machine as
// well. Calls that come at the same time share one write and one sync. A full disk refuses events
// and loses none; recording goes on when there is room.
//
// Durations are measured on a steady clock. The wall clock only tells how long the process was not
// running; time that seems to have been negative counts as none.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/clock.h"
#include "server/log.h"
#include "server/mutex.h"
#include "server/session/event_file.h"
#include "server/session/session_log.h"
#include "server/session/session_table.h"

namespace nestrec {

class EmbeddedSessionLog : public SessionLog {
 public:
  enum class Sync {
    kProcess,  // acknowledged events are the operating system's: safe when the process dies
    kDisk,     // they are on the disk: safe when the machine loses power
  };

  struct Options {
    std::string folder;                // made when it is not there
    int64_t events_per_session = 200;  // the newest are kept
    size_t max_bytes = size_t{1} << 30;
    absl::Duration ttl = absl::ZeroDuration();  // since a session's last event; 0: for ever
    Sync sync = Sync::kProcess;
    // A snapshot is made when the files of events are larger than this and than the last snapshot.
    uint64_t compact_bytes = uint64_t{64} << 20;
    // What was forgotten leaves the disk at the latest after this time.
    absl::Duration forget_on_disk = absl::Hours(1);
    Clock clock = SteadyClock();
    std::function<absl::Time()> wall_clock = absl::Now;
    Log log = StderrLog();
  };

  static constexpr int64_t kMaxEventsPerSession = 1000;
  static constexpr size_t kMaxEventsPerCall = 1000;
  static constexpr size_t kMaxIdBytes = 512;  // of users and items

  // kFailedPrecondition, naming its process, when another one has the folder open, and for files of
  // another release's format; kDataLoss, naming file and byte, for damage other than an unfinished
  // last write; errors of base/file.h. kInvalidArgument for events_per_session
  // outside 1..kMaxEventsPerSession.
  static absl::StatusOr<std::unique_ptr<EmbeddedSessionLog>> Open(Options options);
  ~EmbeddedSessionLog() override;

  absl::StatusOr<SessionAppended> Append(absl::string_view user_id,
                                         std::span<const SessionEvent> events,
                                         absl::string_view event_id) override;
  absl::StatusOr<SessionTail> Read(absl::string_view user_id, int64_t limit) override;
  absl::StatusOr<bool> Forget(absl::string_view user_id) override;
  bool remote() const override { return false; }
  SessionLogStats stats() const override;
  size_t BytesOf(absl::string_view user_id) const override;
  std::string name() const override { return options_.folder; }

  // Makes a snapshot and removes the files that it replaces. Recording goes on meanwhile.
  absl::Status Compact();

 private:
  // A call that waits for its commit.
  struct Request {
    enum class Kind { kAppend, kForget, kRotate, kSweep };
    Kind kind;
    std::string user_id;
    SessionRecord record;  // of kAppend: events and calls
    absl::Status status;
    SessionAppended appended;
    bool forgotten = false;   // of kForget: there was a session
    uint64_t rotated_to = 0;  // of kRotate
    bool done = false;
  };

  explicit EmbeddedSessionLog(Options options);
  absl::Status LockFolder();
  absl::Status Recover();
  absl::Status ApplyRecovered(const SessionRecord& record)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(table_mutex_);

  // Waits until the request was committed, by this thread or another one's.
  void Submit(Request& request);
  std::vector<Request*> TakeBatch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(queue_mutex_);
  // By one thread at a time.
  void Commit(const std::vector<Request*>& batch);
  // Decides what each request records; false when it records nothing.
  bool Prepare(Request& request, int64_t now_ms) ABSL_EXCLUSIVE_LOCKS_REQUIRED(table_mutex_);
  absl::Status WriteBatch(const std::vector<Request*>& batch);
  absl::Status Rotate();
  absl::Status WriteSnapshot(uint64_t number);
  void RemoveFilesBefore(uint64_t number);
  // A background thread's work: snapshots when they are due, expired sessions.
  void Maintain();
  bool CompactionIsDue() const;
  int64_t NowMs() const;
  int64_t WallMs() const { return absl::ToUnixMillis(options_.wall_clock()); }

  const Options options_;
  SessionLogCounter counter_;  // of writes to the file of events
  int lock_fd_ = -1;

  Mutex queue_mutex_;
  ConditionVariable committed_;
  std::deque<Request*> queue_ ABSL_GUARDED_BY(queue_mutex_);
  bool committing_ ABSL_GUARDED_BY(queue_mutex_) = false;

  // Of the thread that commits.
  std::unique_ptr<EventFile> file_;
  bool must_snapshot_ = false;  // before anything is recorded: the last file is not to be trusted
  std::vector<SessionRecord> ended_;  // sessions that made room and are not in the file yet
  std::mt19937_64 numbers_;

  mutable Mutex table_mutex_;
  SessionTable table_ ABSL_GUARDED_BY(table_mutex_);

  Mutex compaction_mutex_;                         // one at a time
  std::atomic<uint64_t> event_bytes_{0};           // of files that no snapshot replaces yet
  std::atomic<uint64_t> snapshot_bytes_{0};        // of the last one
  std::atomic<uint64_t> retry_bytes_{0};           // after a failed snapshot: not before this size
  std::atomic<int64_t> forgotten_ms_{0};           // the first Forget in the file at hand; 0: none
  std::atomic<int64_t> replaced_forgotten_ms_{0};  // and in those that a snapshot is to replace
  // The atomics are hints to the background thread; any order will do.

  Mutex maintain_mutex_;
  ConditionVariable maintain_;
  bool stopping_ ABSL_GUARDED_BY(maintain_mutex_) = false;
  bool wanted_ ABSL_GUARDED_BY(maintain_mutex_) = false;
  std::thread maintainer_;
};

}  // namespace nestrec
