#include "base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/mapping_guard.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

constexpr size_t kWriteBufferBytes = size_t{1} << 20;

std::string FolderOf(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

absl::string_view CureFor(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return "; check the path, and that its folder exists";
    case EACCES:
    case EPERM:
      return "; choose a place where this user may do that";
    case EROFS:
      return "; choose a place that can be written";
    case ENOSPC:
    case EDQUOT:
      return "; free some space, or choose another place";
    case EMFILE:
    case ENFILE:
      return "; raise the limit of open files (ulimit -n)";
    default:
      return "";
  }
}

}  // namespace

absl::Status ErrnoStatus(int error, absl::string_view what, const std::string& path) {
  const std::string message =
      absl::StrCat(what, " ", path, ": ", std::strerror(error), CureFor(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return absl::ResourceExhaustedError(message);
    case EISDIR:
    case ENAMETOOLONG:
    case EINVAL:
      return absl::InvalidArgumentError(message);
    default:
      return absl::UnavailableError(message);
  }
}

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  const absl::Cleanup close_fd = [fd] { close(fd); };
  std::string content;
  struct stat info;
  if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) {
    content.reserve(std::min(static_cast<size_t>(info.st_size), max_bytes));
  }
  char chunk[1 << 16];
  while (true) {
    const ssize_t count = read(fd, chunk, sizeof(chunk));
    if (count == 0) return content;
    if (count < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "cannot read", path);
    }
    content.append(chunk, static_cast<size_t>(count));
    if (content.size() > max_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " has more than ", max_bytes, " bytes, the most that it may have"));
    }
  }
}

absl::Status MakeDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return ErrnoStatus(error.value(), "cannot create folder", path);
  return absl::OkStatus();
}

bool FileExists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

absl::Status CheckWritable(const std::string& path) {
  return AtomicFileWriter::Create(path).status();
}

absl::StatusOr<NewFolders> NewFolders::Create(const std::string& path) {
  std::error_code error;
  std::vector<std::string> missing;
  std::filesystem::path folder(path);
  while (!folder.empty() && !std::filesystem::exists(folder, error)) {
    missing.push_back(folder.string());
    if (folder == folder.parent_path()) break;
    folder = folder.parent_path();
  }
  if (!folder.empty() && std::filesystem::exists(folder, error) &&
      !std::filesystem::is_directory(folder, error)) {
    return absl::InvalidArgumentError(
        missing.empty() ? absl::StrCat(path, " is a file, not a folder; choose another folder")
                        : absl::StrCat("cannot create folder ", path, ": ", folder.string(),
                                       " is a file, not a folder; choose another folder"));
  }
  NewFolders folders(std::move(missing));
  NESTREC_RETURN_IF_ERROR(MakeDirectories(path));
  return folders;
}

NewFolders::~NewFolders() {
  for (const std::string& folder : created_) rmdir(folder.c_str());  // fails unless it is empty
}

absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  const absl::Cleanup close_fd = [fd] { close(fd); };
  struct stat info;
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, "cannot inspect", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  const size_t size = static_cast<size_t>(info.st_size);
  const std::byte* data = nullptr;
  if (size > 0) {
    void* mapping = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    if (mapping == MAP_FAILED) return ErrnoStatus(errno, "cannot map", path);
    data = static_cast<const std::byte*>(mapping);
    RegisterMapping(data, size);
  }
  return std::shared_ptr<const MappedFile>(new MappedFile(path, data, size));
}

void ReleasePages(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(bytes.data()) + page - 1) / page * page;
  const auto end = (reinterpret_cast<uintptr_t>(bytes.data()) + bytes.size()) / page * page;
  // A file's pages that nobody can write to: nothing is lost.
  if (begin < end) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  UnregisterMapping(data_);
  munmap(const_cast<std::byte*>(data_), size_);
}

absl::StatusOr<std::unique_ptr<AtomicFileWriter>> AtomicFileWriter::Create(
    const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot write ", path, ": it is a folder; give the path of a file in it"));
  }
  if (std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot write ", path, ": it is not a regular file; give the path of a new file"));
  }
  std::string temporary;
  int fd = -1;
  // A file that RemoveAbandonedTemporaries met before it was locked is gone again: another one.
  for (bool ours = false; !ours;) {
    temporary = absl::StrCat(path, ".tmp.XXXXXX");
    fd = mkostemp(temporary.data(), O_CLOEXEC);
    if (fd < 0) return ErrnoStatus(errno, "cannot create a file for", path);
    // Held until the descriptor is closed, by the end of the process at the latest; tells
    // RemoveAbandonedTemporaries that somebody is at work. Waits for one that is looking. Without
    // locks nothing is removed.
    flock(fd, LOCK_EX);
    struct stat status = {};
    ours = fstat(fd, &status) != 0 || status.st_nlink > 0;
    if (!ours) close(fd);
  }
  // mkostemp makes the file private; give it the mode that open(2) would have.
  const mode_t mask = umask(0);
  umask(mask);
  fchmod(fd, 0666 & ~mask);
  return std::unique_ptr<AtomicFileWriter>(new AtomicFileWriter(path, std::move(temporary), fd));
}

AtomicFileWriter::~AtomicFileWriter() {
  if (fd_ >= 0) {
    close(fd_);
    unlink(temporary_.c_str());
  }
}

absl::Status WriteAll(int fd, absl::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, "cannot write", path);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status AtomicFileWriter::Write(const void* data, size_t size_bytes) {
  if (buffer_.size() + size_bytes <= kWriteBufferBytes) {
    buffer_.append(static_cast<const char*>(data), size_bytes);
    return absl::OkStatus();
  }
  NESTREC_RETURN_IF_ERROR(Flush());
  return WriteAll(fd_, {static_cast<const char*>(data), size_bytes}, path_);
}

absl::Status AtomicFileWriter::Flush() {
  NESTREC_RETURN_IF_ERROR(WriteAll(fd_, buffer_, path_));
  buffer_.clear();
  return absl::OkStatus();
}

absl::Status AtomicFileWriter::Commit() {
  NESTREC_RETURN_IF_ERROR(Flush());
  if (fsync(fd_) != 0) return ErrnoStatus(errno, "cannot sync", path_);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) {
    return ErrnoStatus(errno, "cannot rename to", path_);
  }
  close(fd_);
  fd_ = -1;
  const std::string folder = FolderOf(path_);
  const int folder_fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_fd < 0) return ErrnoStatus(errno, "cannot open folder", folder);
  const absl::Cleanup close_folder = [folder_fd] { close(folder_fd); };
  if (fsync(folder_fd) != 0 && errno != EINVAL) {
    return ErrnoStatus(errno, "cannot sync folder", folder);
  }
  return absl::OkStatus();
}

void RemoveAbandonedTemporaries(const std::string& path) {
  const std::filesystem::path target(path);
  const std::string start = absl::StrCat(target.filename().string(), ".tmp.");
  constexpr size_t kRandomCharacters = 6;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(FolderOf(path), error), end;
       !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.size() != start.size() + kRandomCharacters || !absl::StartsWith(name, start)) {
      continue;
    }
    const int fd = open(entry->path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) continue;
    const absl::Cleanup close_fd = [fd] { close(fd); };
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) unlink(entry->path().c_str());
  }
}

absl::Status WriteFileAtomically(const std::string& path, absl::string_view content) {
  NESTREC_ASSIGN_OR_RETURN(std::unique_ptr<AtomicFileWriter> writer,
                           AtomicFileWriter::Create(path));
  NESTREC_RETURN_IF_ERROR(writer->Write(content));
  return writer->Commit();
}

}  // namespace nestrec
