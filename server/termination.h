// Waits for the operator's "stop": SIGTERM or SIGINT.
//
// The first one ends Wait; from then on the signals have their default effect again, so that a
// second Ctrl-C ends a program whose drain takes too long.
//
// Thread safety: one object at a time in a process, since signal handlers are the process's.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace nestrec {

class TerminationSignal {
 public:
  // Handles the signals from here on. kInternal when the system refuses.
  static absl::StatusOr<std::unique_ptr<TerminationSignal>> Install();
  ~TerminationSignal();
  TerminationSignal(const TerminationSignal&) = delete;
  TerminationSignal& operator=(const TerminationSignal&) = delete;

  // Returns the signal's name: "SIGTERM" or "SIGINT".
  std::string Wait();

 private:
  explicit TerminationSignal(int read_fd) : read_fd_(read_fd) {}

  const int read_fd_;
};

}  // namespace nestrec
