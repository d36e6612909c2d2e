#include "cli/interrupt.h"

#include <signal.h>

#include <array>
#include <csignal>
#include <cstddef>

namespace nestrec {
namespace {

volatile std::sig_atomic_t interrupted = 0;  // the signal's number

void OnSignal(int signal) {
  interrupted = signal;
  if (signal == SIGINT) ::signal(SIGINT, SIG_DFL);
}

// Several times what the widest vector registers take of a signal's frame.
constexpr size_t kStackBytes = size_t{1} << 16;

}  // namespace

void CatchInterrupts() {
  // Kernels of oneDNN point the stack's register into their work space, on the heap: a handler that
  // ran on the current stack would write over what lies before it. The kernel gives a process's
  // signals to its main thread, which has this one.
  static std::array<char, kStackBytes> stack;
  stack_t of_handlers = {};
  of_handlers.ss_sp = stack.data();
  of_handlers.ss_size = stack.size();
  sigaltstack(&of_handlers, nullptr);
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool Interrupted() { return interrupted != 0; }

bool Terminated() { return interrupted == SIGTERM; }

}  // namespace nestrec
