#include "server/termination.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>

#include "base/file.h"

namespace nestrec {
namespace {

// A handler has no other way to its object. Lock-free, so a handler may read it.
std::atomic<int> write_fd = -1;
static_assert(std::atomic<int>::is_always_lock_free);

void Handle(int signal) {
  const int saved_errno = errno;
  const char byte = static_cast<char>(signal);
  // A full pipe means that a signal already waits there.
  [[maybe_unused]] const ssize_t written =
      write(write_fd.load(std::memory_order_relaxed), &byte, 1);
  errno = saved_errno;
}

absl::Status SetHandler(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  return sigaction(signal, &action, nullptr) == 0
             ? absl::OkStatus()
             : ErrnoStatus(errno, "sigaction", "signal handler");
}

void RestoreDefaults() {
  SetHandler(SIGTERM, SIG_DFL).IgnoreError();
  SetHandler(SIGINT, SIG_DFL).IgnoreError();
}

}  // namespace

absl::StatusOr<std::unique_ptr<TerminationSignal>> TerminationSignal::Install() {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0 || fcntl(fds[1], F_SETFL, O_NONBLOCK) != 0) {
    return ErrnoStatus(errno, "pipe", "signal handler");
  }
  write_fd.store(fds[1], std::memory_order_relaxed);
  std::unique_ptr<TerminationSignal> termination(new TerminationSignal(fds[0]));
  for (const int signal : {SIGTERM, SIGINT}) {
    if (absl::Status status = SetHandler(signal, Handle); !status.ok()) {
      return status;
    }
  }
  return termination;
}

TerminationSignal::~TerminationSignal() {
  RestoreDefaults();
  close(write_fd.exchange(-1, std::memory_order_relaxed));
  close(read_fd_);
}

std::string TerminationSignal::Wait() {
  char byte = 0;
  while (read(read_fd_, &byte, 1) < 0 && errno == EINTR) {
  }
  RestoreDefaults();
  return byte == SIGINT ? "SIGINT" : "SIGTERM";
}

}  // namespace nestrec
