#include "tests/testing/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/status_macros.h"

extern char** environ;

namespace nestrec {

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(
    const std::vector<std::string>& arguments) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) {
    return ErrnoStatus(errno, "pipe", arguments[0]);
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, fds[1], STDERR_FILENO);
  std::vector<std::string> copies = arguments;
  std::vector<char*> pointers;
  for (std::string& copy : copies) {
    pointers.push_back(copy.data());
  }
  pointers.push_back(nullptr);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, pointers[0], &actions, nullptr, pointers.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(fds[1]);
  if (error != 0) {
    close(fds[0]);
    return ErrnoStatus(error, "start", arguments[0]);
  }
  return std::unique_ptr<ChildProcess>(new ChildProcess(pid, fds[0]));
}

ChildProcess::~ChildProcess() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  close(fd_);
}

absl::StatusOr<bool> ChildProcess::ReadMore(absl::Time deadline) {
  pollfd waiting{.fd = fd_, .events = POLLIN, .revents = 0};
  const int64_t left_ms = std::max<int64_t>(0, absl::ToInt64Milliseconds(deadline - absl::Now()));
  if (poll(&waiting, 1, static_cast<int>(left_ms)) == 0) {
    return absl::DeadlineExceededError(absl::StrCat("the program goes on; it wrote:\n", output_));
  }
  char buffer[4096];
  const ssize_t count = read(fd_, buffer, sizeof(buffer));
  if (count > 0) {
    output_.append(buffer, static_cast<size_t>(count));
  }
  return count > 0 || (count < 0 && errno == EINTR);
}

absl::StatusOr<std::string> ChildProcess::WaitForOutput(absl::string_view text,
                                                        absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    const size_t whole_lines = output_.rfind('\n') + 1;
    for (const absl::string_view line :
         absl::StrSplit(absl::string_view(output_).substr(0, whole_lines), '\n')) {
      if (absl::StrContains(line, text)) {
        return std::string(line);
      }
    }
    NESTREC_ASSIGN_OR_RETURN(const bool more, ReadMore(deadline));
    if (!more) {
      return absl::FailedPreconditionError(
          absl::StrCat("the program ended without \"", text, "\":\n", output_));
    }
  }
}

void ChildProcess::Signal(int signal) { kill(pid_, signal); }

absl::StatusOr<int> ChildProcess::WaitForExit(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  for (bool more = true; more;) {  // its output ends when it does
    NESTREC_ASSIGN_OR_RETURN(more, ReadMore(deadline));
  }
  int status = 0;
  if (waitpid(pid_, &status, 0) != pid_) {
    return ErrnoStatus(errno, "wait for", "child process");
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace nestrec
