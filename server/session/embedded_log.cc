#include "server/session/embedded_log.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/guard.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

int64_t TtlMs(absl::Duration ttl) {
  return ttl <= absl::ZeroDuration() ? 0 : std::max<int64_t>(1, absl::ToInt64Milliseconds(ttl));
}

absl::Status CheckId(absl::string_view what, absl::string_view id) {
  if (!id.empty() && id.size() <= EmbeddedSessionLog::kMaxIdBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, " id has ", id.size(),
                                                 " bytes; sessions are kept for ids of 1 to ",
                                                 EmbeddedSessionLog::kMaxIdBytes));
}

// Temporary files of snapshots that were never completed.
void RemoveTemporaries(const std::string& folder) {
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (absl::StartsWith(name, "snapshot-") && absl::StrContains(name, ".tmp.")) {
      unlink(entry->path().c_str());
    }
  }
}

// The newest of `numbers` whose file is more than a header; 0 when none is.
uint64_t LastWritten(const std::string& folder, const std::vector<uint64_t>& numbers) {
  uint64_t last = 0;
  for (const uint64_t number : numbers) {
    std::error_code error;
    const uintmax_t size = std::filesystem::file_size(
        SessionFilePath(folder, SessionFileKind::kEvents, number), error);
    if (!error && size > kSessionFileHeaderBytes) last = number;
  }
  return last;
}

}  // namespace

EmbeddedSessionLog::EmbeddedSessionLog(Options options)
    : options_(std::move(options)),
      table_({.events_per_session = options_.events_per_session,
              .max_bytes = options_.max_bytes,
              .ttl_ms = TtlMs(options_.ttl)}) {
  std::random_device device;
  std::seed_seq seeds{device(), device(), device(), device()};
  numbers_.seed(seeds);
}

absl::StatusOr<std::unique_ptr<EmbeddedSessionLog>> EmbeddedSessionLog::Open(Options options) {
  if (options.events_per_session < 1 || options.events_per_session > kMaxEventsPerSession) {
    return absl::InvalidArgumentError(
        absl::StrCat("events per session: ", options.events_per_session, " is not in 1 to ",
                     kMaxEventsPerSession));
  }
  return Guard("opening sessions", [&]() -> absl::StatusOr<std::unique_ptr<EmbeddedSessionLog>> {
    std::unique_ptr<EmbeddedSessionLog> log(new EmbeddedSessionLog(std::move(options)));
    NESTREC_RETURN_IF_ERROR(log->LockFolder());
    NESTREC_RETURN_IF_ERROR(log->Recover());
    log->maintainer_ = std::thread([raw = log.get()] { raw->Maintain(); });
    return log;
  });
}

EmbeddedSessionLog::~EmbeddedSessionLog() {
  {
    const MutexLock lock(maintain_mutex_);
    stopping_ = true;
  }
  maintain_.NotifyAll();
  if (maintainer_.joinable()) maintainer_.join();
  if (lock_fd_ >= 0) close(lock_fd_);
}

int64_t EmbeddedSessionLog::NowMs() const {
  return std::chrono::duration_cast<std::chrono::milliseconds>(options_.clock().time_since_epoch())
      .count();
}

absl::Status EmbeddedSessionLog::LockFolder() {
  const std::string& folder = options_.folder;
  if (!FileExists(folder)) {
    NESTREC_RETURN_IF_ERROR(MakeDirectories(folder));
    chmod(folder.c_str(), 0700);  // what users did is nobody else's business
  }
  const std::string path = absl::StrCat(folder, "/lock");
  lock_fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_fd_ < 0) return ErrnoStatus(errno, "cannot open", path);
  if (flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    const std::string holder(
        absl::StripSuffix(ReadFile(path, /*max_bytes=*/32).value_or("unknown"), "\n"));
    return absl::FailedPreconditionError(
        absl::StrCat("the session folder ", folder, " is in use by process ", holder,
                     "; give every server a folder of its own, or share sessions through Redis"));
  }
  const std::string process = absl::StrCat(getpid(), "\n");
  if (ftruncate(lock_fd_, 0) != 0 || pwrite(lock_fd_, process.data(), process.size(), 0) < 0) {
    return ErrnoStatus(errno, "cannot write", path);
  }
  return absl::OkStatus();
}

absl::Status EmbeddedSessionLog::ApplyRecovered(const SessionRecord& record) {
  const int64_t age_ms = std::max<int64_t>(0, WallMs() - record.recorded_ms);
  return table_.Apply(record, NowMs() - age_ms);
}

absl::Status EmbeddedSessionLog::Recover() {
  const std::string& folder = options_.folder;
  RemoveTemporaries(folder);
  NESTREC_ASSIGN_OR_RETURN(SessionFiles files, ListSessionFiles(folder));
  const uint64_t snapshot = files.snapshots.empty() ? 0 : files.snapshots.back();
  const uint64_t first = std::max<uint64_t>(snapshot, 1);
  std::erase_if(files.events, [first](uint64_t number) { return number < first; });
  for (size_t i = 0; i < files.events.size() || (i == 0 && snapshot > 0); ++i) {
    const uint64_t expected = first + i;
    if (i < files.events.size() && files.events[i] == expected) continue;
    return absl::DataLossError(
        absl::StrCat(SessionFilePath(folder, SessionFileKind::kEvents, expected),
                     " is missing; restore the folder from a copy"));
  }

  const MutexLock lock(table_mutex_);
  const auto apply = [&](const SessionRecord& record)
                         ABSL_NO_THREAD_SAFETY_ANALYSIS { return ApplyRecovered(record); };
  if (snapshot > 0) {
    const std::string path = SessionFilePath(folder, SessionFileKind::kSnapshot, snapshot);
    NESTREC_RETURN_IF_ERROR(ReadSessionSnapshot(path, snapshot, apply));
    table_.SortByTime();
    std::error_code error;
    snapshot_bytes_ = std::filesystem::file_size(path, error);
  }
  // The last file that holds records may end in an unfinished one; empty ones may follow.
  const uint64_t last_written = LastWritten(folder, files.events);
  EventFileEnd end;
  uint64_t event_bytes = 0;
  uint64_t dropped_bytes = 0;
  for (const uint64_t number : files.events) {
    const std::string path = SessionFilePath(folder, SessionFileKind::kEvents, number);
    NESTREC_ASSIGN_OR_RETURN(end, ReadEventFile(path, number, number >= last_written, apply));
    event_bytes += end.size_bytes;
    dropped_bytes += end.dropped_bytes;
    if (end.dropped_bytes > 0) {
      options_.log.Warning("session_log_cut",
                           {{"path", path}, {"unfinished_bytes", end.dropped_bytes}});
    }
  }
  ended_ = table_.Evict(NowMs());
  const uint64_t last = files.events.empty() ? first : files.events.back();
  if (end.size_bytes == 0) {
    NESTREC_ASSIGN_OR_RETURN(file_, EventFile::Create(folder, last));
  } else {
    NESTREC_ASSIGN_OR_RETURN(file_, EventFile::Open(folder, last, end.size_bytes));
  }
  event_bytes_ = event_bytes;
  // What was cut off another file than the one that goes on can only be followed by a snapshot.
  must_snapshot_ = dropped_bytes > end.dropped_bytes;
  options_.log.Info("sessions_read", {{"folder", folder},
                                      {"sessions", table_.sessions()},
                                      {"bytes", table_.bytes()},
                                      {"expired", table_.expired()}});
  return absl::OkStatus();
}

absl::StatusOr<SessionAppended> EmbeddedSessionLog::Append(absl::string_view user_id,
                                                           std::span<const SessionEvent> events,
                                                           absl::string_view event_id) {
  // So that a record is never larger than recovery believes.
  if (events.size() > kMaxEventsPerCall) {
    return absl::InvalidArgumentError(absl::StrCat(events.size(), " events; at most ",
                                                   kMaxEventsPerCall, " can be recorded at once"));
  }
  for (const SessionEvent& event : events)
    NESTREC_RETURN_IF_ERROR(CheckId("an item", event.item_id));
  NESTREC_RETURN_IF_ERROR(CheckId("a user", user_id));
  return Guard("recording events", [&]() -> absl::StatusOr<SessionAppended> {
    Request request{.kind = Request::Kind::kAppend,
                    .user_id = std::string(user_id),
                    .record = {.user_id = std::string(user_id),
                               .calls = {},
                               .events = {events.begin(), events.end()}},
                    .status = absl::OkStatus(),
                    .appended = {}};
    if (!event_id.empty()) request.record.calls.push_back(HashCallId(event_id));
    Submit(request);
    if (!request.status.ok()) return request.status;
    return request.appended;
  });
}

absl::StatusOr<SessionTail> EmbeddedSessionLog::Read(absl::string_view user_id, int64_t limit) {
  return Guard("reading a session", [&]() -> absl::StatusOr<SessionTail> {
    const MutexLock lock(table_mutex_);
    return table_.Read(user_id, limit, NowMs());
  });
}

absl::StatusOr<bool> EmbeddedSessionLog::Forget(absl::string_view user_id) {
  Request request{.kind = Request::Kind::kForget,
                  .user_id = std::string(user_id),
                  .record = {},
                  .status = absl::OkStatus(),
                  .appended = {}};
  Submit(request);
  if (!request.status.ok()) return request.status;
  return request.forgotten;
}

SessionLogStats EmbeddedSessionLog::stats() const {
  SessionLogStats stats{.file_bytes = static_cast<int64_t>(event_bytes_ + snapshot_bytes_)};
  counter_.WriteTo(stats);
  const MutexLock lock(table_mutex_);
  stats.sessions = table_.sessions();
  stats.bytes = static_cast<int64_t>(table_.bytes());
  stats.evicted = table_.evicted();
  stats.expired = table_.expired();
  return stats;
}

size_t EmbeddedSessionLog::BytesOf(absl::string_view user_id) const {
  const MutexLock lock(table_mutex_);
  return table_.BytesOf(user_id);
}

}  // namespace nestrec
