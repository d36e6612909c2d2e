#include "server/call_tracker.h"

namespace nestrec {

bool CallTracker::Begin() {
  const MutexLock lock(mutex_);
  if (draining_) {
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

}  // namespace nestrec
