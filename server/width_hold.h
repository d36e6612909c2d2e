// Keeps widths that time decides from flapping. What a width costs and how long a request waited
// differ from one request to the next, so that a budget near a width's cost would be served now at
// it and now below it. Here the narrower width is held until the wider one has fitted well for a
// while.
//
//   const int held = holds.Allow({tier, time}, {.may = 4, .well = 3, .widest = 6}, now);
//   ...                                    // at most `held` levels, tried level by level
//   if (ran_out) holds.RanOut({tier, time}, finished, now);
//
// Held apart for every tier and about every time that requests have (two classes an octave): a
// hasty client does not narrow a patient one. A width is given up at once, when it does not fit or
// was tried in vain. It comes back when wider ones fitted well, with room to spare, at every one of
// kAnswers requests and for the hold: then the widest that did at all of them. The hold is
// kShortest, so that all is back within a second, but each time that a wider width is given up
// again within kRelapse it is twice as long, up to kLongest: so a constant load has a constant
// width but for a try every few seconds.
//
// Load is another matter (server/overload_controller.h): what is held does not depend on it.
//
// Memory: 50 entries of about 80 bytes for each tier.
//
// Thread safety: all methods may be called from any thread; a lock is held for less than a
// microsecond. Reads no clock.
#pragma once

#include <cstddef>
#include <limits>
#include <vector>

#include "absl/time/time.h"
#include "server/clock.h"
#include "server/mutex.h"

namespace nestrec {

class WidthHold {
 public:
  static constexpr absl::Duration kShortest = absl::Milliseconds(500);
  static constexpr absl::Duration kLongest = absl::Seconds(8);
  static constexpr absl::Duration kRelapse = absl::Seconds(16);
  static constexpr int kAnswers = 5;
  // A width fits well when this many times what it usually takes is in time.
  static constexpr double kMargin = 1.25;
  static constexpr int kFree = std::numeric_limits<int>::max();  // nothing is held

  // Requests that are held together.
  struct Key {
    size_t tier;          // its number
    absl::Duration time;  // from arrival to when the answer is due
  };
  // Levels that time allows a request, load aside.
  struct Fit {
    int may;     // at most, in time if all goes as usual
    int well;    // with room to spare
    int widest;  // of its tier
  };

  explicit WidthHold(size_t tiers);

  // The levels that a request may have; more than fit.widest where nothing is held. REQUIRES: a
  // tier's number.
  int Allow(const Key& key, const Fit& fit, Instant now);
  // A request that went on level by level ended at `levels` because its time was over.
  void RanOut(const Key& key, int levels, Instant now);

 private:
  struct Entry {
    int held = kFree;
    absl::Duration hold = kShortest;
    bool tried = false;  // whether `held` was widened, at `widened`, and not narrowed since
    Instant widened;
    // Requests since `began` that a wider width fitted well, and the widest that fitted them all.
    Instant began;
    int answers = 0;
    int least = kFree;
  };

  Entry& EntryOf(const Key& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Narrow(Entry& entry, int levels, Instant now);

  Mutex mutex_;
  std::vector<Entry> entries_ ABSL_GUARDED_BY(mutex_);  // [tiers, classes of time]
};

}  // namespace nestrec
