#include "server/line_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "server/clock.h"

namespace nestrec {
namespace {

// More than anybody asks for; LineFilesOf looks no further.
constexpr int kMostFiles = 10'000;

struct OpenFile {
  int fd;
  int64_t size_bytes;
};

absl::StatusOr<OpenFile> OpenForLines(const std::string& path) {
  // Not waiting for the reader of a pipe, which is refused below.
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
  if (fd < 0) return ErrnoStatus(errno, "open", path);
  struct stat info {};
  absl::Status status = absl::OkStatus();
  if (fstat(fd, &info) != 0) {
    status = ErrnoStatus(errno, "look at", path);
  } else if (!S_ISREG(info.st_mode)) {
    status = absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  int64_t size = info.st_size;
  char last = '\n';
  if (status.ok() && size > 0 && pread(fd, &last, 1, size - 1) != 1) {
    status = ErrnoStatus(errno, "read", path);
  }
  // A line that a killed process left unfinished is ended, so that the next one begins on its own.
  if (status.ok() && last != '\n') {
    if (pwrite(fd, "\n", 1, size) == 1) {
      ++size;
    } else {
      status = ErrnoStatus(errno, "write", path);
    }
  }
  if (!status.ok()) {
    close(fd);
    return status;
  }
  return OpenFile{fd, size};
}

std::string NumberedPath(const std::string& path, int number) {
  return number == 0 ? path : absl::StrCat(path, ".", number);
}

}  // namespace

absl::StatusOr<std::unique_ptr<LineFile>> LineFile::Open(Options options, const Log& log) {
  NESTREC_ASSIGN_OR_RETURN(const OpenFile file, OpenForLines(options.path));
  return std::unique_ptr<LineFile>(new LineFile(std::move(options), log, file.fd, file.size_bytes));
}

LineFile::LineFile(Options options, const Log& log, int fd, int64_t size_bytes)
    : options_(std::move(options)), log_(log), fd_(fd), size_bytes_(size_bytes) {
  thread_ = std::thread([this] { Work(); });
}

LineFile::~LineFile() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  thread_.join();
  if (fd_ >= 0) close(fd_);
}

void LineFile::Add(absl::string_view line) {
  {
    const MutexLock lock(mutex_);
    const auto bytes = static_cast<int64_t>(line.size()) + 1;
    if (queue_bytes_ + bytes > options_.max_queue_bytes) {
      ++stats_.dropped_queue;
      return;
    }
    queue_.push_back(absl::StrCat(line, "\n"));
    queue_bytes_ += bytes;
  }
  changed_.NotifyAll();
}

void LineFile::Flush() {
  const MutexLock lock(mutex_);
  while (!queue_.empty() || writing_) changed_.Wait(mutex_);
}

LineFile::Stats LineFile::stats() const {
  const MutexLock lock(mutex_);
  return stats_;
}

void LineFile::Work() {
  for (;;) {
    std::vector<std::string> lines;
    {
      const MutexLock lock(mutex_);
      writing_ = false;
      changed_.NotifyAll();
      while (queue_.empty() && !stopping_) changed_.Wait(mutex_);
      if (queue_.empty()) return;
      lines = std::exchange(queue_, {});
      writing_ = true;
    }
    Write(lines);
  }
}

void LineFile::Write(const std::vector<std::string>& lines) {
  for (const std::string& line : lines) {
    const absl::Status status = WriteLine(line);
    if (!status.ok()) {
      if (const auto left_out = limiter_.Admit(SteadyClock()())) {
        log_.Warning("request_log_failed", {{"error", status.message()}, {"left_out", *left_out}});
      }
    }
    const MutexLock lock(mutex_);
    queue_bytes_ -= static_cast<int64_t>(line.size());
    stats_.lines += status.ok() ? 1 : 0;
    stats_.bytes += status.ok() ? static_cast<int64_t>(line.size()) : 0;
    stats_.dropped_disk += status.ok() ? 0 : 1;
  }
}

absl::Status LineFile::WriteLine(const std::string& line) {
  const auto bytes = static_cast<int64_t>(line.size());
  if (fd_ < 0 || (size_bytes_ > 0 && size_bytes_ + bytes > options_.max_file_bytes)) {
    NESTREC_RETURN_IF_ERROR(Rotate());
  }
  int64_t written = 0;
  while (written < bytes) {
    const ssize_t count = pwrite(fd_, line.data() + written, static_cast<size_t>(bytes - written),
                                 size_bytes_ + written);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      const int error = errno;
      // Half a line must not stand in front of the next one. It is written over even if this fails.
      [[maybe_unused]] const int cut = ftruncate(fd_, size_bytes_);
      return ErrnoStatus(error, "write", options_.path);
    }
    written += count;
  }
  size_bytes_ += bytes;
  return absl::OkStatus();
}

absl::Status LineFile::Rotate() {
  if (fd_ >= 0) close(std::exchange(fd_, -1));
  if (size_bytes_ > 0) {
    unlink(NumberedPath(options_.path, options_.files - 1).c_str());
    for (int number = options_.files - 2; number >= 0; --number) {
      // One that is not there is none to move.
      [[maybe_unused]] const int moved =
          std::rename(NumberedPath(options_.path, number).c_str(),
                      NumberedPath(options_.path, number + 1).c_str());
    }
    size_bytes_ = 0;
  }
  NESTREC_ASSIGN_OR_RETURN(const OpenFile file, OpenForLines(options_.path));
  fd_ = file.fd;
  size_bytes_ = file.size_bytes;
  return absl::OkStatus();
}

std::vector<std::string> LineFilesOf(const std::string& path) {
  std::vector<std::string> files;
  for (int number = 0; number < kMostFiles; ++number) {
    const std::string file = NumberedPath(path, number);
    if (FileExists(file)) {
      files.push_back(file);
    } else if (number > 0) {
      break;
    }
  }
  std::reverse(files.begin(), files.end());
  return files;
}

}  // namespace nestrec
