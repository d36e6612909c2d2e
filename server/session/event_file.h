// The files of an embedded session log: one that grows by whole batches of records, and how it is
// read again after the process or the machine stopped in the middle of a batch.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/session/session_record.h"

namespace nestrec {

// "folder/events-000000000007.log", "folder/snapshot-000000000007".
std::string SessionFilePath(const std::string& folder, SessionFileKind kind, uint64_t number);

// Numbers of the session files in a folder, ascending.
struct SessionFiles {
  std::vector<uint64_t> events;
  std::vector<uint64_t> snapshots;
};
absl::StatusOr<SessionFiles> ListSessionFiles(const std::string& folder);

// Identifies a file in checksums.
inline uint64_t FileIdOf(SessionFileKind kind, uint64_t number) {
  return 2 * number + (kind == SessionFileKind::kSnapshot ? 1 : 0);
}

// A file of events to append to. Not thread-safe.
class EventFile {
 public:
  // A new one, empty and on the disk. Errors of base/file.h.
  static absl::StatusOr<std::unique_ptr<EventFile>> Create(const std::string& folder,
                                                           uint64_t number);
  // One that is there, cut to `size_bytes`.
  static absl::StatusOr<std::unique_ptr<EventFile>> Open(const std::string& folder, uint64_t number,
                                                         uint64_t size_bytes);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  uint64_t number() const { return number_; }
  uint64_t size_bytes() const { return size_bytes_; }
  const std::string& path() const { return path_; }

  // All of `bytes`, or after an error nothing of them: handed to the operating system, which keeps
  // them when the process dies; with `sync`, on the disk. kResourceExhausted when the disk is full.
  absl::Status Append(absl::string_view bytes, bool sync);

  // False after a failed sync, or when a part of a failed batch could not be cut off: what the disk
  // holds is no longer known, and the file takes no more.
  bool usable() const { return usable_; }

 private:
  EventFile(std::string path, uint64_t number, int fd, uint64_t size_bytes)
      : path_(std::move(path)), number_(number), fd_(fd), size_bytes_(size_bytes) {}

  const std::string path_;
  const uint64_t number_;
  const int fd_;
  uint64_t size_bytes_;
  bool usable_ = true;
};

struct EventFileEnd {
  uint64_t size_bytes = 0;     // up to the last whole record; 0: not even the header is there
  uint64_t dropped_bytes = 0;  // of a batch that was never completed
};

// Gives `visit` every record. The last file of a log may end in the middle of a record, as it does
// when the process is killed while it writes; that part is left out and reported. Anything else
// that is no whole file is kDataLoss, with the place and what can be done: a record that does not
// match its checksum in front of ones that do is damage, not an unfinished write.
absl::StatusOr<EventFileEnd> ReadEventFile(
    const std::string& path, uint64_t number, bool is_last,
    absl::FunctionRef<absl::Status(const SessionRecord&)> visit);

// Gives `visit` every record of a snapshot. kDataLoss unless it is complete.
absl::Status ReadSessionSnapshot(const std::string& path, uint64_t number,
                                 absl::FunctionRef<absl::Status(const SessionRecord&)> visit);

}  // namespace nestrec
