// At most so many calls of a client in a time: a token bucket per client that fills at `rate` and
// holds `burst`.
//
// Memory: at most kMostClients buckets; of more clients, those that called longest ago are
// forgotten, and begin with a full bucket again.
//
// Thread safety: Take may be called from any thread.
#pragma once

#include <cstddef>
#include <list>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/clock.h"
#include "server/mutex.h"

namespace nestrec {

class RateLimiter {
 public:
  static constexpr size_t kMostClients = 65'536;

  struct Options {
    double rate = 0;   // calls per second; REQUIRES: > 0
    double burst = 0;  // REQUIRES: >= 1
    size_t most_clients = kMostClients;
  };

  explicit RateLimiter(const Options& options) : options_(options) {}

  // Zero where the call may go on; else how long until the next one may. One that counts as
  // `calls`, at least 1, goes on where a single one may, and what it took too much has to fill up
  // before the next one: over time no client has more than its rate.
  absl::Duration Take(absl::string_view client, Instant now, double calls = 1);

 private:
  struct Bucket {
    std::string client;
    double calls;  // that may be made at once; below 0 after one that counted as many
    Instant filled;
  };

  const Options options_;
  Mutex mutex_;
  std::list<Bucket> buckets_ ABSL_GUARDED_BY(mutex_);  // latest first
  absl::flat_hash_map<absl::string_view, std::list<Bucket>::iterator> places_
      ABSL_GUARDED_BY(mutex_);  // the names live in the list
};

}  // namespace nestrec
