#include "server/security/rate_limiter.h"

#include <algorithm>
#include <chrono>

namespace nestrec {

absl::Duration RateLimiter::Take(absl::string_view client, Instant now, double calls) {
  const MutexLock lock(mutex_);
  const auto found = places_.find(client);
  if (found == places_.end()) {
    if (buckets_.size() >= options_.most_clients) {
      places_.erase(buckets_.back().client);
      buckets_.pop_back();
    }
    buckets_.push_front({.client = std::string(client), .calls = options_.burst, .filled = now});
    places_.emplace(buckets_.front().client, buckets_.begin());
  } else {
    buckets_.splice(buckets_.begin(), buckets_, found->second);
  }
  Bucket& bucket = buckets_.front();
  const double seconds = std::chrono::duration<double>(now - bucket.filled).count();
  if (seconds > 0) {
    bucket.calls = std::min(options_.burst, bucket.calls + seconds * options_.rate);
    bucket.filled = now;
  }
  if (bucket.calls >= 1) {
    bucket.calls -= calls;
    return absl::ZeroDuration();
  }
  return absl::Seconds((1 - bucket.calls) / options_.rate);
}

}  // namespace nestrec
