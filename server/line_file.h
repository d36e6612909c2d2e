// A file that lines are added to from threads that must not wait for a disk: a thread of its own
// writes them. What does not fit into its queue, or onto the disk, is left out and counted.
//
//   NESTREC_ASSIGN_OR_RETURN(auto file, LineFile::Open({.path = "requests.jsonl"}, log));
//   file->Add("{...}");
//
// Bounded: when the file would grow beyond max_file_bytes it becomes <path>.1, the last .1 becomes
// .2, and so on; `files` of them are kept, the one that grows included. After an error nothing of a
// line is left in the file, and the next lines try again.
//
// Lines are handed to the operating system within a moment; they survive the death of the process
// from there on, not that of the machine.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/log.h"
#include "server/log_limiter.h"
#include "server/mutex.h"

namespace nestrec {

class LineFile {
 public:
  struct Options {
    std::string path;
    int64_t max_file_bytes = int64_t{100} << 20;  // REQUIRES: >= 1
    int files = 5;                                // REQUIRES: >= 1
    int64_t max_queue_bytes = int64_t{4} << 20;   // of lines that wait
  };
  struct Stats {
    int64_t lines = 0;          // written
    int64_t bytes = 0;          // written
    int64_t dropped_queue = 0;  // lines: the disk was too slow
    int64_t dropped_disk = 0;   // lines: it refused them
  };

  // Goes on behind what is there. Errors of the operating system, naming the path;
  // kInvalidArgument for what is no regular file. `log` outlives this object: it is told of lines
  // that were refused.
  static absl::StatusOr<std::unique_ptr<LineFile>> Open(Options options, const Log& log);
  // Writes what waits.
  ~LineFile();
  LineFile(const LineFile&) = delete;
  LineFile& operator=(const LineFile&) = delete;

  // `line`: without line ends.
  void Add(absl::string_view line);
  // Returns when all that was added before is written or dropped.
  void Flush();
  Stats stats() const;

 private:
  LineFile(Options options, const Log& log, int fd, int64_t size_bytes);

  void Work();
  void Write(const std::vector<std::string>& lines);
  absl::Status WriteLine(const std::string& line);
  absl::Status Rotate();

  const Options options_;
  const Log& log_;
  LogLimiter limiter_{1, 0.1};

  // Of the thread that writes.
  int fd_;  // -1: could not be opened again
  int64_t size_bytes_;

  mutable Mutex mutex_;
  ConditionVariable changed_;
  std::vector<std::string> queue_ ABSL_GUARDED_BY(mutex_);
  int64_t queue_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Stats stats_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

// The files of a line file that are there, oldest first, the one that grows last.
std::vector<std::string> LineFilesOf(const std::string& path);

}  // namespace nestrec
