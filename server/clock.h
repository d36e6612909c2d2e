// The server's clock: steady, so that a changed wall clock neither expires requests nor bends
// timings, and injected, so that tests decide what time it is.
#pragma once

#include <time.h>

#include <chrono>
#include <functional>

#include "absl/time/time.h"

namespace nestrec {

using Instant = std::chrono::steady_clock::time_point;
// Must be safe to call from any thread.
using Clock = std::function<Instant()>;

inline Clock SteadyClock() {
  return [] { return std::chrono::steady_clock::now(); };
}

// Time that the calling thread has run: what others do meanwhile does not count. Differences on one
// thread alone mean something.
inline Clock ThreadClock() {
  return [] {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return Instant(std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec));
  };
}

inline absl::Duration Between(Instant from, Instant to) { return absl::FromChrono(to - from); }

}  // namespace nestrec
