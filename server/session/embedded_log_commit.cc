// How calls come to the disk together, and how snapshots take the place of files.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "server/session/embedded_log.h"

namespace nestrec {
namespace {

constexpr size_t kMaxBatchRequests = 1024;
// How often the background thread looks for expired sessions and for forgotten ones on disk.
constexpr absl::Duration kSweepInterval = absl::Minutes(1);

}  // namespace

// The first thread that finds nobody committing does it for all that wait, until its own request is
// done; then the next one takes over. So a write and its sync are shared by all that came
// meanwhile.
void EmbeddedSessionLog::Submit(Request& request) {
  queue_mutex_.lock();
  queue_.push_back(&request);
  while (!request.done && committing_) committed_.Wait(queue_mutex_);
  if (!request.done) {
    committing_ = true;
    while (!request.done) {
      const std::vector<Request*> batch = TakeBatch();
      queue_mutex_.unlock();
      Commit(batch);
      queue_mutex_.lock();
      for (Request* committed : batch) committed->done = true;
    }
    committing_ = false;
    committed_.NotifyAll();
  }
  queue_mutex_.unlock();
}

// At most one request of a user, so that each knows what is there before it.
std::vector<EmbeddedSessionLog::Request*> EmbeddedSessionLog::TakeBatch() {
  std::vector<Request*> batch;
  std::deque<Request*> left;
  absl::flat_hash_set<absl::string_view> users;
  for (Request* request : queue_) {
    if (batch.size() < kMaxBatchRequests && users.insert(request->user_id).second) {
      batch.push_back(request);
    } else {
      left.push_back(request);
    }
  }
  queue_ = std::move(left);
  return batch;
}

bool EmbeddedSessionLog::Prepare(Request& request, int64_t now_ms) {
  SessionRecord& record = request.record;
  const std::optional<CallId> call =
      record.calls.empty() ? std::nullopt : std::optional<CallId>(record.calls.front());
  if (request.kind == Request::Kind::kForget) {
    const std::optional<uint64_t> session = table_.NumberOf(request.user_id);
    request.forgotten = session.has_value();
    if (!session.has_value()) return false;
    record = {.type = SessionRecord::Type::kForget,
              .user_id = request.user_id,
              .session = *session,
              .calls = {},
              .events = {}};
    return true;
  }
  const std::optional<SessionTable::View> session = table_.Find(request.user_id, call, now_ms);
  if (session.has_value() && (session->knows_call || record.events.empty())) {
    request.appended = {
        .session = session->session, .end = session->end, .duplicate = session->knows_call};
    return false;
  }
  if (record.events.empty()) return false;
  record.type = SessionRecord::Type::kAppend;
  record.recorded_ms = WallMs();
  record.session = session.has_value() ? session->session : numbers_() | 1;  // never 0
  record.first = session.has_value() ? session->end : 0;
  request.appended = {.session = record.session,
                      .end = record.first + static_cast<int64_t>(record.events.size()),
                      .duplicate = false};
  return true;
}

void EmbeddedSessionLog::Commit(const std::vector<Request*>& batch) {
  std::vector<Request*> recording;
  const int64_t now_ms = NowMs();
  absl::Status status = Guard("recording events", [&]() -> absl::Status {
    {
      const MutexLock lock(table_mutex_);
      std::vector<SessionRecord> ended = table_.Evict(now_ms);
      std::move(ended.begin(), ended.end(), std::back_inserter(ended_));
      for (Request* request : batch) {
        const bool changes =
            request->kind == Request::Kind::kAppend || request->kind == Request::Kind::kForget;
        if (changes && Prepare(*request, now_ms)) recording.push_back(request);
      }
    }
    if (!file_->usable()) {
      // What the file holds is not known, but all that was acknowledged is in memory.
      must_snapshot_ = true;
      NESTREC_RETURN_IF_ERROR(Rotate());
    }
    if (must_snapshot_) {
      NESTREC_RETURN_IF_ERROR(WriteSnapshot(file_->number()));
      must_snapshot_ = false;
    }
    return WriteBatch(recording);
  });
  for (Request* request : batch) {
    if (request->kind != Request::Kind::kRotate) continue;
    request->status = Rotate();
    request->rotated_to = file_->number();
  }
  const MutexLock lock(table_mutex_);
  for (Request* request : recording) {
    if (status.ok()) {
      request->status = table_.Apply(request->record, now_ms);
      if (request->kind == Request::Kind::kForget && forgotten_ms_ == 0) forgotten_ms_ = now_ms;
    } else {
      request->status = status;
    }
  }
  std::vector<SessionRecord> ended = table_.Evict(now_ms);
  std::move(ended.begin(), ended.end(), std::back_inserter(ended_));
}

absl::Status EmbeddedSessionLog::WriteBatch(const std::vector<Request*>& batch) {
  std::string bytes;
  const uint64_t id = FileIdOf(SessionFileKind::kEvents, file_->number());
  const auto add = [&](const SessionRecord& record) {
    AppendFrame(record, id, file_->size_bytes() + bytes.size(), bytes);
  };
  for (const SessionRecord& record : ended_) add(record);
  for (const Request* request : batch) add(request->record);
  if (bytes.empty()) return absl::OkStatus();
  const Instant begun = options_.clock();
  const absl::Status appended = file_->Append(bytes, options_.sync == Sync::kDisk);
  counter_.Count(appended.ok(), Between(begun, options_.clock()));
  NESTREC_RETURN_IF_ERROR(appended);
  ended_.clear();
  event_bytes_ += bytes.size();
  if (CompactionIsDue()) {
    const MutexLock lock(maintain_mutex_);
    wanted_ = true;
    maintain_.NotifyAll();
  }
  return absl::OkStatus();
}

absl::Status EmbeddedSessionLog::Rotate() {
  NESTREC_ASSIGN_OR_RETURN(std::unique_ptr<EventFile> next,
                           EventFile::Create(options_.folder, file_->number() + 1));
  file_ = std::move(next);
  const int64_t forgotten_ms = forgotten_ms_.exchange(0);
  if (replaced_forgotten_ms_ == 0) replaced_forgotten_ms_ = forgotten_ms;
  return absl::OkStatus();
}

bool EmbeddedSessionLog::CompactionIsDue() const {
  const uint64_t bytes = event_bytes_;
  if (bytes < retry_bytes_) return false;
  if (bytes > options_.compact_bytes && bytes > snapshot_bytes_) return true;
  const int64_t forgotten_ms = replaced_forgotten_ms_ != 0 ? replaced_forgotten_ms_ : forgotten_ms_;
  return forgotten_ms != 0 &&
         NowMs() - forgotten_ms >= absl::ToInt64Milliseconds(options_.forget_on_disk);
}

absl::Status EmbeddedSessionLog::Compact() {
  const MutexLock lock(compaction_mutex_);
  // From here on events go to a new file; the snapshot holds all that went before, and may hold
  // some of what comes after, which recovery finds out.
  Request request{.kind = Request::Kind::kRotate,
                  .user_id = {},
                  .record = {},
                  .status = absl::OkStatus(),
                  .appended = {}};
  Submit(request);
  NESTREC_RETURN_IF_ERROR(request.status);
  return Guard("writing a snapshot", [&] { return WriteSnapshot(request.rotated_to); });
}

absl::Status EmbeddedSessionLog::WriteSnapshot(uint64_t number) {
  const uint64_t before = event_bytes_;
  const std::string path = SessionFilePath(options_.folder, SessionFileKind::kSnapshot, number);
  NESTREC_ASSIGN_OR_RETURN(std::unique_ptr<AtomicFileWriter> writer,
                           AtomicFileWriter::Create(path));
  const uint64_t id = FileIdOf(SessionFileKind::kSnapshot, number);
  const std::string header = SessionFileHeader(SessionFileKind::kSnapshot, number);
  NESTREC_RETURN_IF_ERROR(writer->Write(header));
  uint64_t at = header.size();
  int64_t count = 0;
  const auto write = [&](const SessionRecord& record) -> absl::Status {
    std::string bytes;
    AppendFrame(record, id, at, bytes);
    at += bytes.size();
    return writer->Write(bytes);
  };
  for (size_t shard = 0; shard < SessionTable::kShards; ++shard) {
    std::vector<SessionRecord> records;
    int64_t to_wall_ms = 0;
    {
      const MutexLock lock(table_mutex_);
      table_.AppendShard(shard, records);
      to_wall_ms = WallMs() - NowMs();
    }
    for (SessionRecord& record : records) {
      record.recorded_ms += to_wall_ms;
      NESTREC_RETURN_IF_ERROR(write(record));
      ++count;
    }
  }
  NESTREC_RETURN_IF_ERROR(write({.type = SessionRecord::Type::kEnd,
                                 .user_id = {},
                                 .calls = {},
                                 .events = {},
                                 .count = count}));
  NESTREC_RETURN_IF_ERROR(writer->Commit());
  RemoveFilesBefore(number);
  event_bytes_ -= before;
  snapshot_bytes_ = at;
  retry_bytes_ = 0;
  replaced_forgotten_ms_ = 0;
  options_.log.Info("sessions_snapshot", {{"path", path}, {"sessions", count}, {"bytes", at}});
  return absl::OkStatus();
}

void EmbeddedSessionLog::RemoveFilesBefore(uint64_t number) {
  const absl::StatusOr<SessionFiles> files = ListSessionFiles(options_.folder);
  if (!files.ok()) return;  // the next snapshot removes them
  for (const uint64_t old : files->events) {
    if (old < number) {
      unlink(SessionFilePath(options_.folder, SessionFileKind::kEvents, old).c_str());
    }
  }
  for (const uint64_t old : files->snapshots) {
    if (old < number) {
      unlink(SessionFilePath(options_.folder, SessionFileKind::kSnapshot, old).c_str());
    }
  }
}

void EmbeddedSessionLog::Maintain() {
  for (;;) {
    {
      const MutexLock lock(maintain_mutex_);
      const auto deadline =
          std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(kSweepInterval);
      while (!stopping_ && !wanted_) {
        if (!maintain_.WaitUntil(maintain_mutex_, deadline)) break;
      }
      if (stopping_) return;
      wanted_ = false;
    }
    Request sweep{.kind = Request::Kind::kSweep,
                  .user_id = {},
                  .record = {},
                  .status = absl::OkStatus(),
                  .appended = {}};
    Submit(sweep);
    if (!CompactionIsDue()) continue;
    const absl::Status status = Compact();
    if (!status.ok()) {
      // Nothing is lost: the files of events stay. Not again for every event.
      retry_bytes_ = event_bytes_ + options_.compact_bytes / 4;
      options_.log.Warning("sessions_snapshot_failed", {{"error", status.message()}});
    }
  }
}

}  // namespace nestrec
