#include "server/memory_return.h"

#include <malloc.h>

#include <algorithm>
#include <chrono>

#include "base/memory_limits.h"

namespace nestrec {
namespace {

// Resident bytes that no allocation holds: what the allocator keeps, and a few MiB of other things
// (stacks, the program's variables). Allocations that were never touched make it too small.
int64_t UnusedBytes() {
  const struct mallinfo2 info = mallinfo2();
  return static_cast<int64_t>(AnonymousBytes()) - static_cast<int64_t>(info.uordblks + info.hblkhd);
}

}  // namespace

MemoryReturn::MemoryReturn(const Options& options)
    : options_(options), thread_([this] { Watch(); }) {}

MemoryReturn::~MemoryReturn() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  thread_.join();
}

void MemoryReturn::Watch() {
  // What was left when all had been given back that could be: to try again would be work for
  // nothing.
  int64_t floor = 0;
  while (true) {
    const auto next = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(options_.every);
    {
      const MutexLock lock(mutex_);
      while (!stopping_ && changed_.WaitUntil(mutex_, next)) {
      }
      if (stopping_) return;
    }
    const int64_t unused = UnusedBytes();
    floor = std::min(floor, std::max<int64_t>(unused, 0));
    if (unused - floor <= options_.kept_bytes) continue;
    malloc_trim(0);
    floor = std::max<int64_t>(UnusedBytes(), 0);
  }
}

}  // namespace nestrec
