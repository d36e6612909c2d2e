#include "server/width_hold.h"

#include <algorithm>
#include <cmath>

namespace nestrec {
namespace {

constexpr size_t kClasses = 50;
constexpr double kClassesPerOctave = 2;
constexpr absl::Duration kFirstClass = absl::Microseconds(100);  // the last is of an hour and more

size_t ClassOf(absl::Duration time) {
  const double times = absl::FDivDuration(time, kFirstClass);
  if (!(times > 1)) return 0;
  const double place = std::floor(kClassesPerOctave * std::log2(times));
  return static_cast<size_t>(std::min(place, static_cast<double>(kClasses - 1)));
}

}  // namespace

WidthHold::WidthHold(size_t tiers) : entries_(tiers * kClasses) {}

WidthHold::Entry& WidthHold::EntryOf(const Key& key) {
  return entries_[key.tier * kClasses + ClassOf(key.time)];
}

void WidthHold::Narrow(Entry& entry, int levels, Instant now) {
  // Further down at one go says nothing new about how long it has to be.
  if (entry.tried) {
    const bool relapse = Between(entry.widened, now) < kRelapse;
    entry.hold = relapse ? std::min(2 * entry.hold, kLongest) : kShortest;
  }
  entry.tried = false;
  entry.held = levels;
  entry.answers = 0;
}

int WidthHold::Allow(const Key& key, const Fit& fit, Instant now) {
  const MutexLock lock(mutex_);
  Entry& entry = EntryOf(key);
  if (fit.may < std::min(entry.held, fit.widest)) {
    Narrow(entry, fit.may, now);
    return entry.held;
  }
  if (entry.held >= fit.widest) return entry.held;
  if (fit.well <= entry.held) {
    entry.answers = 0;
    return entry.held;
  }
  if (entry.answers == 0) {
    entry.began = now;
    entry.least = kFree;
  }
  ++entry.answers;
  entry.least = std::min(entry.least, fit.well);
  if (entry.answers < kAnswers || Between(entry.began, now) < entry.hold) return entry.held;
  entry.held = entry.least;
  entry.answers = 0;
  entry.tried = true;
  entry.widened = now;
  return entry.held;
}

void WidthHold::RanOut(const Key& key, int levels, Instant now) {
  const MutexLock lock(mutex_);
  Entry& entry = EntryOf(key);
  if (levels < entry.held) Narrow(entry, levels, now);
}

}  // namespace nestrec
