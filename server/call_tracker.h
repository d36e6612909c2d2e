// Counts running calls, so that a shutdown knows when the last one has its answer. gRPC's own
// shutdown waits for connections too, and an idle client may keep one open for as long as it likes.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/clock.h"

namespace nestrec {

class CallTracker {
 public:
  // False once Drain was called: the call must be refused, and End not called.
  [[nodiscard]] bool Begin();
  void End();

  // Lets no call begin any more and waits until none runs, at most until `deadline` of the steady
  // clock. Returns how many still run.
  int64_t Drain(Instant deadline);
  // After Drain: waits until no call has been refused for as long as `quiet`, at most until
  // `deadline` of the steady clock.
  void WaitUntilQuiet(absl::Duration quiet, Instant deadline);

 private:
  Mutex mutex_;
  ConditionVariable ended_;
  int64_t running_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t refused_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace nestrec
