#include "model/float_arena.h"

#include <algorithm>

namespace nestrec {

float* FloatArena::Allocate(int64_t floats) {
  const int64_t size = (floats + kAlignment - 1) / kAlignment * kAlignment;
  if (chunks_.empty() || chunks_.back().size - chunks_.back().used < size) {
    const int64_t chunk = std::max({kLeastChunk, size, used()});
    const auto all = static_cast<size_t>(chunk + kAlignment);
    chunks_.push_back({.memory = std::make_unique_for_overwrite<float[]>(all), .size = chunk});
  }
  Chunk& chunk = chunks_.back();
  void* begin = chunk.memory.get();
  size_t space = static_cast<size_t>(chunk.size + kAlignment) * sizeof(float);
  std::align(kAlignment * sizeof(float), static_cast<size_t>(chunk.size) * sizeof(float), begin,
             space);
  float* values = static_cast<float*>(begin) + chunk.used;
  chunk.used += size;
  return values;
}

void FloatArena::Clear() {
  if (chunks_.size() > 1) {
    const int64_t together = used();
    chunks_.clear();
    Allocate(together);
  }
  for (Chunk& chunk : chunks_) chunk.used = 0;
}

int64_t FloatArena::used() const {
  int64_t used = 0;
  for (const Chunk& chunk : chunks_) used += chunk.used;
  return used;
}

ArenaPool::Lease ArenaPool::Take() {
  std::unique_ptr<FloatArena> arena;
  {
    const MutexLock lock(mutex_);
    if (!free_.empty()) {
      // The one that was used last: its memory is the most likely to be in the caches.
      arena = std::move(free_.back());
      free_.pop_back();
    }
  }
  if (arena == nullptr) arena = std::make_unique<FloatArena>();
  return Lease(this, std::move(arena));
}

void ArenaPool::Return(std::unique_ptr<FloatArena> arena) {
  if (arena->used() > kKeptFloats) return;
  arena->Clear();
  const MutexLock lock(mutex_);
  free_.push_back(std::move(arena));
}

}  // namespace nestrec
