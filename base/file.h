// Whole-file reading, memory mapping and crash-safe writing.
//
// Errors name the path, what was tried and errno's text; a missing file is kNotFound, a full disk
// kResourceExhausted, a read-only file system or missing permission kPermissionDenied, other I/O
// kUnavailable. Functions are thread-safe on different paths.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nestrec {

// A Status for the system call that just failed with `error` (errno).
absl::Status ErrnoStatus(int error, absl::string_view what, const std::string& path);

// kInvalidArgument for a file of more than `max_bytes`, which is not read further: some, such as
// /dev/zero, have no end.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes = SIZE_MAX);

// Creates `path` and its parents; fine when it exists already.
absl::Status MakeDirectories(const std::string& path);

bool FileExists(const std::string& path);

// Whether AtomicFileWriter could begin to write `path`, for finding out before the work and not
// after it.
absl::Status CheckWritable(const std::string& path);

// A folder with its parents, as MakeDirectories makes it; those that were not there before are
// removed again, as far as they are empty, unless Keep() is called. Movable, not thread-safe.
class NewFolders {
 public:
  // kInvalidArgument, naming it, when `path` or one of its parents is a file.
  static absl::StatusOr<NewFolders> Create(const std::string& path);
  ~NewFolders();
  NewFolders(NewFolders&& other) noexcept : created_(std::exchange(other.created_, {})) {}
  NewFolders& operator=(NewFolders&&) = delete;

  void Keep() { created_.clear(); }

 private:
  explicit NewFolders(std::vector<std::string> created) : created_(std::move(created)) {}
  std::vector<std::string> created_;  // innermost first
};

// A read-only mapping of a whole file. Pages are read on first touch. The mapping stays valid when
// the path is replaced by rename (writers here always do). What writes into the file changes it; a
// file that is cut short ends the process, or reads as zeros where base/mapping_guard.h guards it.
class MappedFile {
 public:
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

 private:
  MappedFile(std::string path, const std::byte* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}
  std::string path_;
  const std::byte* data_;
  size_t size_;
};

// Lets the pages go that lie wholly within these bytes of a MappedFile: they count no more as this
// process's memory, and come back, from the system's cache or the file, when they are read again.
// Best effort, and may run beside readers.
void ReleasePages(std::span<const std::byte> bytes);

// Writes a file that appears under its name complete or not at all: bytes go to a temporary file in
// the same folder; Commit() syncs it, renames it and syncs the folder. Without Commit() (error,
// crash) the old file stays, and the destructor removes the temporary one. Not thread-safe.
class AtomicFileWriter {
 public:
  // kInvalidArgument for a path that is a folder, a device or another thing that is no file: it
  // would be replaced.
  static absl::StatusOr<std::unique_ptr<AtomicFileWriter>> Create(const std::string& path);
  ~AtomicFileWriter();
  AtomicFileWriter(const AtomicFileWriter&) = delete;
  AtomicFileWriter& operator=(const AtomicFileWriter&) = delete;

  absl::Status Write(const void* data, size_t size_bytes);
  absl::Status Write(absl::string_view text) { return Write(text.data(), text.size()); }
  // Hands what Write has gathered to the operating system, so that little is left that can go wrong
  // at Commit.
  absl::Status Flush();
  absl::Status Commit();

 private:
  AtomicFileWriter(std::string path, std::string temporary, int fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}

  std::string path_;
  std::string temporary_;
  int fd_;
  std::string buffer_;
};

// Removes the temporary files of writers of `path` that were killed: each holds a lock on its file
// while it lives. Best effort; writers that are at work are left alone.
void RemoveAbandonedTemporaries(const std::string& path);

// All of `bytes` into an open file, `path` by name: write(2), as often as it takes. What was
// written before an error stays.
absl::Status WriteAll(int fd, absl::string_view bytes, const std::string& path);

// AtomicFileWriter for content at hand.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view content);

}  // namespace nestrec
