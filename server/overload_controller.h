// How many widths to give up while there is more work than time: the one number by which load
// narrows requests before any is turned away.
//
//   const int steps = controller.steps();   // 0: as wide as every tier allows
//   controller.Began();
//   ...
//   controller.Ended({.waited = oldest_wait, .busy = took, .busy_if_wider = estimate});
//
// Narrows when the workers are busy and even the shortest wait of an interval was above the target
// (the sign of a standing queue: CoDel, Nichols and Jacobson 2012), by one width, then two, then
// four in a row. Widens by one width once waits are short and the work, had it been done a width
// wider, would have kept the workers busy for less than `widen_below` of the time: clearly less
// over one interval, or somewhat less over five. So the answer to a constant load is a constant:
// what was too much at a width is not tried again until the load falls. Time without work widens as
// well, a width an interval.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include "absl/time/time.h"
#include "server/clock.h"
#include "server/mutex.h"

namespace nestrec {

class OverloadController {
 public:
  struct Options {
    int max_steps = 0;  // levels - 1 of the widest range of any tier; REQUIRES: >= 0
    int workers = 1;    // REQUIRES: >= 1
    // Longer than a queue that is only a burst needs to empty, shorter than what a user notices.
    absl::Duration target = absl::Milliseconds(5);
    absl::Duration interval = absl::Milliseconds(50);
    double widen_below = 0.75;   // leaves room for bursts at the wider width
    double clearly_below = 0.4;  // what chance alone seldom makes of a load that is too much
    Clock clock = SteadyClock();
  };

  // One batch that a worker ended.
  struct Batch {
    absl::Duration waited;         // how long its oldest request had to wait for a worker
    absl::Duration busy;           // the worker's time for it
    absl::Duration busy_if_wider;  // the same with one step less
  };

  explicit OverloadController(Options options);

  // Around each batch, on any thread.
  void Began();
  void Ended(const Batch& batch);

  int steps();

 private:
  // What was seen in a stretch of time.
  struct Seen {
    absl::Duration least_wait = absl::InfiniteDuration();
    absl::Duration busy = absl::ZeroDuration();
    absl::Duration busy_if_wider = absl::ZeroDuration();
    absl::Duration length = absl::ZeroDuration();
  };

  // Draws the conclusion once an interval is over.
  void Advance(Instant now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  double Share(absl::Duration busy, absl::Duration length) const {
    return absl::FDivDuration(busy, options_.workers * length);
  }

  const Options options_;
  Mutex mutex_;
  int steps_ ABSL_GUARDED_BY(mutex_) = 0;
  int stride_ ABSL_GUARDED_BY(mutex_) = 1;  // of the next narrowing
  Instant began_ ABSL_GUARDED_BY(mutex_);   // the interval
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  Seen interval_ ABSL_GUARDED_BY(mutex_);
  Seen since_change_ ABSL_GUARDED_BY(mutex_);  // of steps_, or since it was last looked at
};

}  // namespace nestrec
