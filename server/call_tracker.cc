#include "server/call_tracker.h"

#include <algorithm>
#include <chrono>

namespace nestrec {

bool CallTracker::Begin() {
  const MutexLock lock(mutex_);
  if (draining_) {
    ++refused_;
    return false;
  }
  ++running_;
  return true;
}

void CallTracker::End() {
  // Notified under the lock: the tracker may be gone as soon as Drain sees the last call end.
  const MutexLock lock(mutex_);
  --running_;
  ended_.NotifyAll();
}

int64_t CallTracker::Drain(Instant deadline) {
  const MutexLock lock(mutex_);
  draining_ = true;
  while (running_ > 0 && ended_.WaitUntil(mutex_, deadline)) {
  }
  return running_;
}

void CallTracker::WaitUntilQuiet(absl::Duration quiet, Instant deadline) {
  const MutexLock lock(mutex_);
  int64_t seen = -1;
  while (seen != refused_ && std::chrono::steady_clock::now() < deadline) {
    seen = refused_;
    const Instant until =
        std::min(deadline, std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(quiet));
    while (ended_.WaitUntil(mutex_, until)) {
    }
  }
}

}  // namespace nestrec
