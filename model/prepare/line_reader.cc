#include "model/prepare/line_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 18;

gzFile Handle(void* file) { return static_cast<gzFile>(file); }

}  // namespace

absl::StatusOr<std::unique_ptr<LineReader>> LineReader::Open(const std::string& path) {
  const int fd =
      open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe would wait for its writer
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  struct stat info;
  if (fstat(fd, &info) != 0 || S_ISDIR(info.st_mode)) {
    close(fd);
    return absl::InvalidArgumentError(
        absl::StrCat("cannot read ", path, ": it is a folder, not a file"));
  }
  // Inputs are opened more than once, which a pipe does not survive, and a device may never end.
  if (!S_ISREG(info.st_mode)) {
    close(fd);
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot read ", path, ": it is a pipe or a device; write its content to a file first"));
  }
  gzFile file = gzdopen(fd, "rb");  // reads plain files as well
  if (file == nullptr) {
    close(fd);
    return absl::ResourceExhaustedError(absl::StrCat("cannot read ", path, ": out of memory"));
  }
  gzbuffer(file, kChunkBytes);
  return std::unique_ptr<LineReader>(
      new LineReader(path, file, static_cast<uint64_t>(std::max<off_t>(info.st_size, 0))));
}

LineReader::~LineReader() { gzclose(Handle(file_)); }

absl::StatusOr<bool> LineReader::Fill() {
  if (at_end_) return false;
  buffer_.erase(0, begin_);
  begin_ = 0;
  if (buffer_.size() > kMaxLineBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ":", number_ + 1, ": the line is longer than ", kMaxLineBytes >> 20,
                     " MiB; is this a text file?"));
  }
  const size_t before = buffer_.size();
  buffer_.resize(before + kChunkBytes);
  const int count = gzread(Handle(file_), buffer_.data() + before, kChunkBytes);
  buffer_.resize(before + static_cast<size_t>(std::max(count, 0)));
  if (count > 0) return true;
  at_end_ = true;
  int error = Z_OK;
  const char* message = gzerror(Handle(file_), &error);
  if (error == Z_ERRNO) return ErrnoStatus(errno, "cannot read", path_);
  if (error != Z_OK && error != Z_STREAM_END) {
    return absl::DataLossError(absl::StrCat("the gzip file ", path_,
                                            " is damaged or cut off after line ", number_, " (",
                                            message, "); fetch it again"));
  }
  return false;
}

absl::StatusOr<std::optional<absl::string_view>> LineReader::Next() {
  size_t searched = begin_;
  size_t end = buffer_.find('\n', searched);
  while (end == std::string::npos) {
    searched = buffer_.size() - begin_;
    NESTREC_ASSIGN_OR_RETURN(const bool more, Fill());
    if (!more) break;
    end = buffer_.find('\n', searched);
  }
  if (end == std::string::npos && begin_ >= buffer_.size()) return std::nullopt;
  absl::string_view line(buffer_.data() + begin_, std::min(end, buffer_.size()) - begin_);
  begin_ = end == std::string::npos ? buffer_.size() : end + 1;
  ++number_;
  if (number_ == 1 && line.substr(0, 3) == "\xef\xbb\xbf") line.remove_prefix(3);
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

double LineReader::fraction() const {
  if (size_bytes_ == 0) return 1;
  return std::clamp(static_cast<double>(gzoffset(Handle(file_))) / static_cast<double>(size_bytes_),
                    0.0, 1.0);
}

}  // namespace nestrec
