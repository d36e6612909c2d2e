#include "cli/interrupt.h"

#include <csignal>

namespace nestrec {
namespace {

volatile std::sig_atomic_t interrupted = 0;  // the signal's number

void OnSignal(int signal) {
  interrupted = signal;
  if (signal == SIGINT) std::signal(SIGINT, SIG_DFL);
}

}  // namespace

void CatchInterrupts() {
  std::signal(SIGINT, OnSignal);
  std::signal(SIGTERM, OnSignal);
}

bool Interrupted() { return interrupted != 0; }

bool Terminated() { return interrupted == SIGTERM; }

}  // namespace nestrec
