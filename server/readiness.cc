#include "server/readiness.h"

#include <utility>

namespace nestrec {

std::string Readiness::why_not() const {
  const MutexLock lock(mutex_);
  return why_not_;
}

void Readiness::Listen(std::function<void(bool)> listen) {
  const MutexLock lock(mutex_);
  listen(why_not_.empty());
  listeners_.push_back(std::move(listen));
}

void Readiness::Set(absl::string_view why_not) {
  const MutexLock lock(mutex_);
  why_not_ = std::string(why_not);
  for (const auto& listen : listeners_) listen(why_not_.empty());
}

}  // namespace nestrec
