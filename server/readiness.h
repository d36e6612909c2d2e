// Whether this server is to get requests, and if not, why.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/mutex.h"

namespace nestrec {

class Readiness {
 public:
  // Not ready, for this reason.
  explicit Readiness(absl::string_view why_not) : why_not_(why_not) {}

  void SetReady() { Set(""); }
  void SetNotReady(absl::string_view why_not) { Set(why_not); }

  // Empty: ready.
  std::string why_not() const;
  // Called now, and on each change, under a lock: `listen` must be quick and not call this object.
  // REQUIRES: `listen` may be called as long as this object lives.
  void Listen(std::function<void(bool ready)> listen);

 private:
  void Set(absl::string_view why_not);

  mutable Mutex mutex_;
  std::string why_not_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::function<void(bool)>> listeners_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nestrec
