// A program of ours as a child process, for tests of the real binary. Every wait has a bound and is
// woken by what it waits for; nothing sleeps.
//
//   auto child = ChildProcess::Start({NESTREC_PROGRAM, "serve", "--model", path});
//   auto line = (*child)->WaitForOutput("serving ");
//   (*child)->Signal(SIGTERM);
//   auto exit_code = (*child)->WaitForExit();
//
// Not thread-safe.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace nestrec {

class ChildProcess {
 public:
  // arguments[0] is the program's path. Its stdout and stderr come together in output().
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(
      const std::vector<std::string>& arguments);
  // Kills it when it still runs.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // The first output line that contains `text`. kDeadlineExceeded, or kFailedPrecondition when the
  // program ended first, with what it wrote.
  absl::StatusOr<std::string> WaitForOutput(absl::string_view text,
                                            absl::Duration timeout = absl::Seconds(60));
  void Signal(int signal);
  pid_t pid() const { return pid_; }
  // The exit code, or 128 + the signal that ended it. kDeadlineExceeded with what it wrote.
  absl::StatusOr<int> WaitForExit(absl::Duration timeout = absl::Seconds(60));
  // What it wrote, as far as it was waited for.
  const std::string& output() const { return output_; }

 private:
  ChildProcess(pid_t pid, int fd) : pid_(pid), fd_(fd) {}
  // False at the end of the output.
  absl::StatusOr<bool> ReadMore(absl::Time deadline);

  pid_t pid_;  // -1 once it was waited for
  int fd_;     // read end of its output
  std::string output_;
};

}  // namespace nestrec
