#include "server/session/event_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

constexpr absl::string_view kEventsPrefix = "events-";
constexpr absl::string_view kEventsSuffix = ".log";
constexpr absl::string_view kSnapshotPrefix = "snapshot-";

absl::string_view AsText(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.data()), file.size()};
}

std::optional<uint64_t> NumberOf(absl::string_view name, absl::string_view prefix,
                                 absl::string_view suffix) {
  uint64_t number = 0;
  if (!absl::ConsumePrefix(&name, prefix) || !absl::ConsumeSuffix(&name, suffix) ||
      !absl::SimpleAtoi(name, &number) || absl::StrFormat("%012d", number) != name) {
    return std::nullopt;
  }
  return number;
}

absl::Status SyncFolder(const std::string& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open folder", folder);
  const absl::Cleanup close_fd = [fd] { close(fd); };
  if (fsync(fd) != 0 && errno != EINVAL) return ErrnoStatus(errno, "cannot sync folder", folder);
  return absl::OkStatus();
}

// Where the next whole record begins, if there is one.
std::optional<uint64_t> FindRecord(absl::string_view bytes, uint64_t file, uint64_t from) {
  for (uint64_t at = from; at < bytes.size(); ++at) {
    if (ReadFrame(bytes.substr(at), file, at).has_value()) return at;
  }
  return std::nullopt;
}

}  // namespace

std::string SessionFilePath(const std::string& folder, SessionFileKind kind, uint64_t number) {
  const std::string digits = absl::StrFormat("%012d", number);
  return kind == SessionFileKind::kEvents
             ? absl::StrCat(folder, "/", kEventsPrefix, digits, kEventsSuffix)
             : absl::StrCat(folder, "/", kSnapshotPrefix, digits);
}

absl::StatusOr<SessionFiles> ListSessionFiles(const std::string& folder) {
  SessionFiles files;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (const auto number = NumberOf(name, kEventsPrefix, kEventsSuffix)) {
      files.events.push_back(*number);
    } else if (const auto snapshot = NumberOf(name, kSnapshotPrefix, "")) {
      files.snapshots.push_back(*snapshot);
    }
  }
  if (error) return ErrnoStatus(error.value(), "cannot list folder", folder);
  std::sort(files.events.begin(), files.events.end());
  std::sort(files.snapshots.begin(), files.snapshots.end());
  return files;
}

absl::StatusOr<std::unique_ptr<EventFile>> EventFile::Create(const std::string& folder,
                                                             uint64_t number) {
  std::string path = SessionFilePath(folder, SessionFileKind::kEvents, number);
  // Truncated: there may be the beginning of one that could not be completed.
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoStatus(errno, "cannot create", path);
  std::unique_ptr<EventFile> file(new EventFile(path, number, fd, 0));
  absl::Status status = file->Append(SessionFileHeader(SessionFileKind::kEvents, number), true);
  if (status.ok()) status = SyncFolder(folder);
  if (!status.ok()) {
    unlink(path.c_str());
    return status;
  }
  return file;
}

absl::StatusOr<std::unique_ptr<EventFile>> EventFile::Open(const std::string& folder,
                                                           uint64_t number, uint64_t size_bytes) {
  std::string path = SessionFilePath(folder, SessionFileKind::kEvents, number);
  const int fd = open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  std::unique_ptr<EventFile> file(new EventFile(path, number, fd, size_bytes));
  if (ftruncate(fd, static_cast<off_t>(size_bytes)) != 0) {
    return ErrnoStatus(errno, "cannot cut", path);
  }
  if (fdatasync(fd) != 0) return ErrnoStatus(errno, "cannot sync", path);
  return file;
}

EventFile::~EventFile() { close(fd_); }

absl::Status EventFile::Append(absl::string_view bytes, bool sync) {
  if (!usable_) {
    return absl::UnavailableError(
        absl::StrCat(path_, " takes no more records since writing it failed"));
  }
  absl::Status status = WriteAll(fd_, bytes, path_);
  if (!status.ok()) {
    usable_ = ftruncate(fd_, static_cast<off_t>(size_bytes_)) == 0;
    return status;
  }
  if (sync && fdatasync(fd_) != 0) {
    // The kernel may have dropped the pages that it could not write.
    usable_ = false;
    return ErrnoStatus(errno, "cannot sync", path_);
  }
  size_bytes_ += bytes.size();
  return absl::OkStatus();
}

absl::StatusOr<EventFileEnd> ReadEventFile(
    const std::string& path, uint64_t number, bool is_last,
    absl::FunctionRef<absl::Status(const SessionRecord&)> visit) {
  NESTREC_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  const absl::string_view bytes = AsText(*file);
  const uint64_t id = FileIdOf(SessionFileKind::kEvents, number);
  if (bytes.size() < kSessionFileHeaderBytes && is_last) {
    return EventFileEnd{.size_bytes = 0, .dropped_bytes = bytes.size()};
  }
  const absl::Status header = CheckSessionFileHeader(bytes, SessionFileKind::kEvents, number);
  if (!header.ok()) {
    return absl::Status(header.code(), absl::StrCat(path, ": ", header.message()));
  }
  uint64_t at = kSessionFileHeaderBytes;
  while (at < bytes.size()) {
    const std::optional<SessionFrame> frame = ReadFrame(bytes.substr(at), id, at);
    if (!frame.has_value()) {
      const std::optional<uint64_t> next = FindRecord(bytes, id, at + 1);
      if (is_last && !next.has_value()) {
        return EventFileEnd{.size_bytes = at, .dropped_bytes = bytes.size() - at};
      }
      return absl::DataLossError(absl::StrCat(
          path, " is damaged at byte ", at, " of ", bytes.size(),
          next.has_value() ? absl::StrCat(": whole records follow at byte ", *next)
                           : std::string(": later files follow it"),
          ". Restore the folder from a copy; or remove the files that follow and cut this one with "
          "`truncate -s ",
          at, "`, which loses what was recorded after"));
    }
    const absl::Status status = visit(frame->record);
    if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat(path, ", record at byte ", at, ": ", status.message()));
    }
    at += frame->size_bytes;
  }
  return EventFileEnd{.size_bytes = at, .dropped_bytes = 0};
}

absl::Status ReadSessionSnapshot(const std::string& path, uint64_t number,
                                 absl::FunctionRef<absl::Status(const SessionRecord&)> visit) {
  NESTREC_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  const absl::string_view bytes = AsText(*file);
  const uint64_t id = FileIdOf(SessionFileKind::kSnapshot, number);
  const absl::Status header = CheckSessionFileHeader(bytes, SessionFileKind::kSnapshot, number);
  if (!header.ok()) {
    return absl::Status(header.code(), absl::StrCat(path, ": ", header.message()));
  }
  const auto damaged = [&](uint64_t at) {
    return absl::DataLossError(absl::StrCat(path, " is damaged at byte ", at, " of ", bytes.size(),
                                            "; restore the folder from a copy"));
  };
  int64_t count = 0;
  for (uint64_t at = kSessionFileHeaderBytes; at < bytes.size();) {
    const std::optional<SessionFrame> frame = ReadFrame(bytes.substr(at), id, at);
    if (!frame.has_value()) return damaged(at);
    at += frame->size_bytes;
    if (frame->record.type == SessionRecord::Type::kEnd) {
      return frame->record.count == count && at == bytes.size() ? absl::OkStatus() : damaged(at);
    }
    ++count;
    NESTREC_RETURN_IF_ERROR(visit(frame->record));
  }
  return damaged(bytes.size());
}

}  // namespace nestrec
