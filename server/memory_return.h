// Gives memory back to the system that the allocator keeps although nobody uses it: after a wave of
// calls, the arenas of the threads that received them stay as large as they have been.
//
//   const MemoryReturn memory_return({});
//
// Threads: one, which looks every few seconds. Thread safety: constructed and destroyed by one
// thread.
#pragma once

#include <cstdint>
#include <thread>

#include "absl/time/time.h"
#include "server/mutex.h"

namespace nestrec {

class MemoryReturn {
 public:
  struct Options {
    absl::Duration every = absl::Seconds(3);
    // Bytes that may stay: what calls take a moment later need not be asked for again.
    int64_t kept_bytes = int64_t{32} << 20;
  };
  explicit MemoryReturn(const Options& options);
  ~MemoryReturn();
  MemoryReturn(const MemoryReturn&) = delete;
  MemoryReturn& operator=(const MemoryReturn&) = delete;

 private:
  void Watch();

  const Options options_;
  Mutex mutex_;
  ConditionVariable changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace nestrec
