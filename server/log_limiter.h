// Keeps lines that load can multiply from flooding the log: so many at once, so many a second after
// that, and how many were left out beside the next one that is written.
//
//   if (const std::optional<int64_t> left_out = limiter.Admit(now)) {
//     log.Warning("slow_request", {..., {"left_out", *left_out}});
//   }
//
// A token bucket. Thread safety: all methods may be called from any thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/clock.h"

namespace nestrec {

class LogLimiter {
 public:
  // REQUIRES: burst >= 1, per_second > 0.
  LogLimiter(double burst, double per_second)
      : burst_(burst), per_second_(per_second), tokens_(burst) {}

  // Whether a line may be written now, and if so how many were not since the last one.
  std::optional<int64_t> Admit(Instant now) {
    const MutexLock lock(mutex_);
    if (now > refilled_) {
      const double seconds =
          refilled_ == Instant::min() ? 0 : absl::ToDoubleSeconds(Between(refilled_, now));
      tokens_ = std::min(burst_, tokens_ + seconds * per_second_);
      refilled_ = now;
    }
    if (tokens_ < 1) {
      ++left_out_;
      return std::nullopt;
    }
    tokens_ -= 1;
    return std::exchange(left_out_, 0);
  }

 private:
  const double burst_;
  const double per_second_;
  Mutex mutex_;
  double tokens_ ABSL_GUARDED_BY(mutex_);
  Instant refilled_ ABSL_GUARDED_BY(mutex_) = Instant::min();
  int64_t left_out_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace nestrec
