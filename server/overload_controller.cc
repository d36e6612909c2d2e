#include "server/overload_controller.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace nestrec {
namespace {

constexpr int kLongestStride = 4;
constexpr int kPatience = 5;  // intervals
// Of the workers' time: with less the queue was emptied in the meantime, whatever its end waited.
constexpr double kStanding = 0.5;

}  // namespace

OverloadController::OverloadController(Options options) : options_(std::move(options)) {
  const MutexLock lock(mutex_);
  began_ = options_.clock();
}

void OverloadController::Began() {
  const Instant now = options_.clock();
  const MutexLock lock(mutex_);
  if (running_ == 0) Advance(now);
  ++running_;
}

void OverloadController::Ended(const Batch& batch) {
  const Instant now = options_.clock();
  const MutexLock lock(mutex_);
  --running_;
  interval_.least_wait = std::min(interval_.least_wait, batch.waited);
  interval_.busy += batch.busy;
  interval_.busy_if_wider += std::max(batch.busy, batch.busy_if_wider);
  Advance(now);
}

int OverloadController::steps() {
  const Instant now = options_.clock();
  const MutexLock lock(mutex_);
  // What runs has not shown yet what it costs.
  if (running_ == 0) Advance(now);
  return steps_;
}

void OverloadController::Advance(Instant now) {
  interval_.length = Between(began_, now);
  if (interval_.length < options_.interval) return;
  since_change_.busy_if_wider += interval_.busy_if_wider;
  since_change_.length += interval_.length;
  const int before = steps_;
  const bool standing = interval_.least_wait != absl::InfiniteDuration() &&  // of no batch at all
                        interval_.least_wait > options_.target &&
                        Share(interval_.busy, interval_.length) > kStanding;
  if (standing) {
    steps_ = std::min(options_.max_steps, steps_ + stride_);
    stride_ = std::min(2 * stride_, kLongestStride);
  } else {
    stride_ = 1;
    const double share = Share(interval_.busy_if_wider, interval_.length);
    const bool patient = since_change_.length >= kPatience * options_.interval;
    if (share < options_.clearly_below) {
      const double idle = (1 - share) * absl::FDivDuration(interval_.length, options_.interval);
      steps_ = static_cast<int>(std::max(0.0, steps_ - std::max(1.0, std::floor(idle))));
    } else if (patient &&
               Share(since_change_.busy_if_wider, since_change_.length) < options_.widen_below) {
      steps_ = std::max(0, steps_ - 1);
    }
    if (patient) since_change_ = {};
  }
  if (steps_ != before) since_change_ = {};
  interval_ = {};
  began_ = now;
}

}  // namespace nestrec
