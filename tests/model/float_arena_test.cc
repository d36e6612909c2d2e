#include "model/float_arena.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "base/random.h"

namespace nestrec {
namespace {

TEST(FloatArenaTest, GivesAlignedMemoryThatDoesNotOverlap) {
  FloatArena arena;
  Random random(1);
  for (int round = 0; round < 5; ++round) {
    std::vector<std::pair<float*, int64_t>> given;
    for (int i = 0; i < 60; ++i) {
      const int64_t floats = random.Index(20'000);
      float* values = arena.Allocate(floats);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(values) % 64, 0u);
      std::fill_n(values, floats, static_cast<float>(i));
      given.emplace_back(values, floats);
    }
    for (size_t i = 0; i < given.size(); ++i) {
      const auto [values, floats] = given[i];
      EXPECT_TRUE(std::all_of(values, values + floats,
                              [i](float value) { return value == static_cast<float>(i); }));
    }
    arena.Clear();
    EXPECT_EQ(arena.used(), 0);
  }
}

TEST(FloatArenaTest, HasTheSameMemoryForTheSameCallAgain) {
  FloatArena arena;
  std::vector<float*> last;
  for (int call = 0; call < 4; ++call) {
    std::vector<float*> given;
    for (int i = 0; i < 10; ++i) given.push_back(arena.Allocate(100'000));
    if (call >= 2) {  // the second call has it in one piece
      EXPECT_EQ(given, last);
    }
    last = given;
    arena.Clear();
  }
}

TEST(ArenaPoolTest, KeepsWhatWasGivenBackUnlessItIsTooLarge) {
  ArenaPool pool;
  FloatArena* first = nullptr;
  {
    const ArenaPool::Lease lease = pool.Take();
    first = &*lease;
    lease->Allocate(1000);
  }
  {
    const ArenaPool::Lease again = pool.Take();
    EXPECT_EQ(&*again, first);
    EXPECT_EQ(again->used(), 0);
    const ArenaPool::Lease other = pool.Take();
    EXPECT_NE(&*other, first);
    again->Allocate(ArenaPool::kKeptFloats + 1);  // never touched
  }
  const ArenaPool::Lease left = pool.Take();
  const ArenaPool::Lease fresh = pool.Take();
  EXPECT_EQ(left->used() + fresh->used(), 0);
}

TEST(ArenaPoolTest, LeasesToManyThreads) {
  ArenaPool pool;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&pool, t] {
      for (int i = 0; i < 300; ++i) {
        const ArenaPool::Lease lease = pool.Take();
        float* values = lease->Allocate(500);
        std::fill_n(values, 500, static_cast<float>(t));
        EXPECT_EQ(std::count(values, values + 500, static_cast<float>(t)), 500);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace nestrec
