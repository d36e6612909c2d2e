// The latest requests, a few of them: what the next model is warmed up with. Held as external item
// ids, since item numbers are a model's own.
//
// Thread safety: all methods may be called from any thread; Add returns at once when it is not the
// turn of a request or another thread is at it.
#pragma once

#include <deque>
#include <span>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/clock.h"
#include "server/live/item_view.h"
#include "server/mutex.h"

namespace nestrec {

class RecentRequests {
 public:
  static constexpr size_t kKept = 64;
  // From one that is kept to the next.
  static constexpr absl::Duration kEvery = absl::Milliseconds(20);

  struct Request {
    std::vector<std::string> item_ids;
    int dim;
  };

  // `history` in the view's numbers, 0 for items that it does not hold; at most the last
  // `most` are kept.
  void Add(std::span<const int32_t> history, int most, int dim, const ItemView& items, Instant now);
  // Oldest first.
  std::vector<Request> Get() const;

 private:
  mutable Mutex mutex_;
  std::deque<Request> kept_ ABSL_GUARDED_BY(mutex_);
  Instant next_ ABSL_GUARDED_BY(mutex_) = Instant::min();
};

}  // namespace nestrec
