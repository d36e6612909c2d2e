#include "server/overload_controller.h"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace nestrec {
namespace {

constexpr int kLongestStride = 4;

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
  least_wait_ = std::min(least_wait_, batch.waited);
  busy_if_wider_ += std::max(batch.busy, batch.busy_if_wider);
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
  const absl::Duration length = Between(began_, now);
  if (length < options_.interval) return;
  const double share = absl::FDivDuration(busy_if_wider_, options_.workers * length);
  // The shortest wait of no batch is infinite and says nothing.
  if (least_wait_ != absl::InfiniteDuration() && least_wait_ > options_.target) {
    steps_ = std::min(options_.max_steps, steps_ + stride_);
    stride_ = std::min(2 * stride_, kLongestStride);
  } else {
    stride_ = 1;
    if (share < options_.widen_below) {
      const auto idle =
          static_cast<int64_t>((1 - share) * absl::FDivDuration(length, options_.interval));
      steps_ = static_cast<int>(std::max<int64_t>(0, steps_ - std::max<int64_t>(1, idle)));
    }
  }
  began_ = now;
  least_wait_ = absl::InfiniteDuration();
  busy_if_wider_ = absl::ZeroDuration();
}

}  // namespace nestrec
