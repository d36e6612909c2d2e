// Memory for the matrices of one call that the next call uses again. A call of the encoder touches
// megabytes; from the system they come page by page, which takes as long as the arithmetic.
//
//   const ArenaPool::Lease arena = pool.Take();
//   float* matrix = arena->Allocate(rows * columns);   // until the lease ends
//
// Contents are whatever was there; addresses are multiples of 64 bytes.
//
// Thread safety: a FloatArena belongs to one thread at a time; an ArenaPool may be used from all.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace nestrec {

class FloatArena {
 public:
  float* Allocate(int64_t floats);
  // Takes all back; what they needed together is there at once the next time.
  void Clear();
  // Of what is allocated.
  int64_t used() const;

 private:
  static constexpr int64_t kAlignment = 16;        // floats
  static constexpr int64_t kLeastChunk = 1 << 16;  // floats

  struct Chunk {
    std::unique_ptr<float[]> memory;
    int64_t size = 0;
    int64_t used = 0;
  };
  std::vector<Chunk> chunks_;
};

class ArenaPool {
 public:
  // What a call may have used and its arena is still kept for the next one: 128 MiB, a batch of 32
  // histories of 50 items through 4 blocks of width 1024.
  static constexpr int64_t kKeptFloats = 32 << 20;

  class Lease {
   public:
    Lease(ArenaPool* pool, std::unique_ptr<FloatArena> arena)
        : pool_(pool), arena_(std::move(arena)) {}
    ~Lease() { pool_->Return(std::move(arena_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    FloatArena* operator->() const { return arena_.get(); }
    FloatArena& operator*() const { return *arena_; }

   private:
    ArenaPool* const pool_;
    std::unique_ptr<FloatArena> arena_;
  };

  // There are as many arenas as there are leases at a time.
  Lease Take();

 private:
  void Return(std::unique_ptr<FloatArena> arena);

  Mutex mutex_;
  std::vector<std::unique_ptr<FloatArena>> free_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nestrec
