// The lines of a text file, plain or gzip, read in pieces: memory is one line and a buffer.
//
//   NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<LineReader> lines,
//   LineReader::Open("events.csv.gz")); while (true) {
//     NESTREC_ASSIGN_OR_RETURN(const std::optional<absl::string_view> line, lines->Next());
//     if (!line.has_value()) break;
//     ...
//   }
//
// A byte-order mark at the start and "\r" before the line's end are dropped. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nestrec {

class LineReader {
 public:
  static constexpr size_t kMaxLineBytes = size_t{64} << 20;

  // A regular file only: kInvalidArgument for a folder, a pipe or a device; errors of base/file.h.
  static absl::StatusOr<std::unique_ptr<LineReader>> Open(const std::string& path);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // The next line, valid until the next call; nothing at the end of the file. kDataLoss for gzip
  // data that is damaged or cut off, kInvalidArgument for a line longer than kMaxLineBytes.
  absl::StatusOr<std::optional<absl::string_view>> Next();

  // The number of the line that Next returned last, from 1.
  int64_t number() const { return number_; }
  // The part of the file that has been read, 0 to 1.
  double fraction() const;
  const std::string& path() const { return path_; }

 private:
  LineReader(std::string path, void* file, uint64_t size_bytes)
      : path_(std::move(path)), file_(file), size_bytes_(size_bytes) {}
  // Reads more into the buffer; false at the end of the file.
  absl::StatusOr<bool> Fill();

  std::string path_;
  void* file_;  // zlib's gzFile
  uint64_t size_bytes_;
  std::string buffer_;
  size_t begin_ = 0;  // of what has not been returned yet
  bool at_end_ = false;
  int64_t number_ = 0;
};

}  // namespace nestrec
