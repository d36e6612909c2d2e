#include "server/recent_requests.h"

#include <algorithm>
#include <utility>

namespace nestrec {

void RecentRequests::Add(std::span<const int32_t> history, int most, int dim, const ItemView& items,
                         Instant now) {
  {
    const MutexLock lock(mutex_);
    if (now < next_) return;
    next_ = now + absl::ToChronoNanoseconds(kEvery);
  }
  Request request{.item_ids = {}, .dim = dim};
  for (const int32_t item : history.last(std::min(history.size(), static_cast<size_t>(most)))) {
    if (item != 0) request.item_ids.emplace_back(items.id(item));
  }
  const MutexLock lock(mutex_);
  kept_.push_back(std::move(request));
  if (kept_.size() > kKept) kept_.pop_front();
}

std::vector<RecentRequests::Request> RecentRequests::Get() const {
  const MutexLock lock(mutex_);
  return {kept_.begin(), kept_.end()};
}

}  // namespace nestrec
