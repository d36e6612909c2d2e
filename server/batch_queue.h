// The requests that wait for a worker: a bounded lane per tier, and which of them go together next.
// Arithmetic alone, no threads and no clock: server/batcher.h adds those.
//
// Order: lanes of a higher priority first; among lanes of one priority each gets its share of the
// places while it has work, as in weighted fair queueing (Demers, Keshav and Shenker 1989); within
// a lane first come, first served.
//
// A request that would have to wait for more than half of its time is refused when it comes: what
// would be late anyway must not stand in the way of what can still be in time. How long the wait
// will be follows from the requests ahead and from what the last ones took.
//
// Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/clock.h"

namespace nestrec {

// A request on its way. Of an accepted one either the batch that it is part of takes care, or Drop
// is called, once.
class BatchItem {
 public:
  virtual ~BatchItem() = default;
  // Whether nobody waits for the answer any more.
  virtual bool Cancelled() const = 0;
  // kDeadlineExceeded or kCancelled.
  virtual void Drop(const absl::Status& why) = 0;
};

struct QueuedItem {
  std::unique_ptr<BatchItem> item;
  Instant accepted;
  Instant deadline = Instant::max();  // when it is too late to begin
  size_t lane = 0;                    // set by Push
};

// What became of a lane's items so far.
struct LaneStats {
  std::string name;
  size_t waiting = 0;  // now
  int64_t accepted = 0;
  int64_t refused_full = 0;  // no place
  int64_t refused_late = 0;  // the wait would have been too long for them
  int64_t expired = 0;       // while they waited
  int64_t cancelled = 0;     // the same
};

class BatchQueue {
 public:
  struct Lane {
    std::string name;     // for messages; empty: none
    size_t capacity = 1;  // REQUIRES: >= 1
    double share = 1;     // to that of the other lanes; REQUIRES: > 0
    int priority = 0;     // a higher one goes first

    friend bool operator==(const Lane&, const Lane&) = default;
  };
  struct Options {
    std::vector<Lane> lanes;  // REQUIRES: at least one
    size_t max_batch = 1;     // REQUIRES: >= 1
    // How long the first request of a batch waits for others to join it; 0: what is there goes.
    absl::Duration max_delay = absl::ZeroDuration();
    int workers = 1;  // that take batches; REQUIRES: >= 1
  };

  explicit BatchQueue(Options options);

  // kResourceExhausted with a retry delay (status_details.h), and without the item, when the lane
  // is full or the wait would be longer than half the way to the item's deadline. REQUIRES:
  // `accepted` never falls.
  absl::Status Push(size_t lane, QueuedItem item);

  // When the next batch is to be taken; nothing when nothing waits. A batch that is full was to be
  // taken in the past.
  std::optional<Instant> ReadyAt() const;

  struct Taken {
    std::vector<QueuedItem> batch;    // at most max_batch
    std::vector<QueuedItem> expired;  // whose deadline is over
  };
  Taken Take(Instant now);

  // What a worker's batch took; keeps the estimate of waits.
  void Served(size_t items, absl::Duration busy);
  // Of an item that was taken, and that nobody waits for any more.
  void Cancelled(size_t lane) { ++lanes_[lane].stats.cancelled; }
  std::vector<LaneStats> stats() const;  // [lanes]
  // Of an item that is pushed to the lane now.
  absl::Duration ExpectedWait(size_t lane) const;

  size_t size() const { return size_; }

 private:
  struct Waiting {
    std::deque<QueuedItem> items;
    double turn = 0;  // the places that it has had, by share
    LaneStats stats;  // but for name and waiting
  };

  size_t NextLane() const;

  const Options options_;
  std::vector<Waiting> lanes_;
  size_t size_ = 0;
  double newest_turn_ = 0;  // of the lane that was served last
  // Sums over the last batches, of which older ones count less.
  double served_ = 0;
  absl::Duration busy_ = absl::ZeroDuration();
};

}  // namespace nestrec
