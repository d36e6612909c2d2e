#include "model/item_ranks.h"

#include <algorithm>
#include <limits>
#include <vector>

// Compiles this file once per instruction set; the best one is chosen at run time. Without SVE,
// whose vectors cannot be kept in arrays: NEON is there as well.
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "model/item_ranks.cc"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace nestrec {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::CappedTag<float, 16>;
using V = hn::Vec<Tag>;
using Counts = hn::RebindToSigned<Tag>;

// A block's sums stay in registers, as in model/packed_rows.cc: one vector for each item and each
// kVectors users' worth.
constexpr int kVectors = 3;
#if HWY_TARGET == HWY_SSSE3 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_AVX2
constexpr int kItems = 4;
#else
constexpr int kItems = 8;
#endif

// Part of what a score is: every sum is over so many columns at most.
constexpr int64_t kColumns = 256;

// One pass's users, padded to whole panels: [levels, padded].
struct Pass {
  const LevelItems* items;
  const PackedRows* z;
  int64_t padded;
  const int32_t* targets;        // [padded]
  const float* target_scores;    // [levels, padded]
  int32_t* HWY_RESTRICT before;  // [levels, padded]
};

// Counts kCount items from `item` on for the users in kXs vectors, from `user` on.
template <int kCount, int kXs>
HWY_INLINE void Block(const Pass& pass, int64_t item, int64_t user) {
  const Tag d;
  const Counts di;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const NestedSizes& sizes = *pass.items->sizes;
  const int64_t panel = user / PackedRows::kPanel;
  V totals[kCount][kXs];
  for (int i = 0; i < kCount; ++i) {
    for (int x = 0; x < kXs; ++x) totals[i][x] = hn::Zero(d);
  }
  for (int level = 0; level < pass.items->levels; ++level) {
    const int64_t width = sizes.width(level);
    const float* rows = pass.items->items[static_cast<size_t>(level)].data() + item * width;
    for (int64_t begin = 0; begin < width; begin += kColumns) {
      const int64_t end = std::min(width, begin + kColumns);
      const float* HWY_RESTRICT z =
          pass.z->at(panel, sizes.begin(level) + begin) + user % PackedRows::kPanel;
      V sums[kCount][kXs];
      for (int i = 0; i < kCount; ++i) {
        for (int x = 0; x < kXs; ++x) sums[i][x] = hn::Zero(d);
      }
      for (int64_t c = begin; c < end; ++c, z += PackedRows::kPanel) {
        V values[kXs];
        for (int x = 0; x < kXs; ++x) values[x] = hn::LoadU(d, z + x * lanes);
        for (int i = 0; i < kCount; ++i) {
          const V factor = hn::Set(d, rows[i * width + c]);
          for (int x = 0; x < kXs; ++x) sums[i][x] = hn::MulAdd(factor, values[x], sums[i][x]);
        }
      }
      for (int i = 0; i < kCount; ++i) {
        for (int x = 0; x < kXs; ++x) totals[i][x] = hn::Add(totals[i][x], sums[i][x]);
      }
    }
    for (int x = 0; x < kXs; ++x) {
      const int64_t at = level * pass.padded + user + x * lanes;
      const auto score = hn::LoadU(d, pass.target_scores + at);
      const auto target = hn::LoadU(di, pass.targets + user + x * lanes);
      auto count = hn::LoadU(di, pass.before + at);
      for (int i = 0; i < kCount; ++i) {
        const auto number = hn::Set(di, static_cast<int32_t>(item + i));
        const auto wins_tie = hn::RebindMask(d, hn::Lt(number, target));
        const auto higher = hn::Gt(totals[i][x], score);
        const auto equal = hn::Eq(totals[i][x], score);
        const auto is_before = hn::Or(higher, hn::And(equal, wins_tie));
        count = hn::Sub(count, hn::VecFromMask(di, hn::RebindMask(di, is_before)));  // a mask is -1
      }
      hn::StoreU(count, di, pass.before + at);
    }
  }
}

template <int kCount>
HWY_INLINE void AllUsers(const Pass& pass, int64_t item) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Tag()));
  for (int64_t begin = 0; begin < pass.z->rows(); begin += PackedRows::kPanel) {
    const int64_t users = std::min(PackedRows::kPanel, pass.z->rows() - begin);
    const int64_t vectors = (users + lanes - 1) / lanes;
    int64_t vector = 0;
    for (; vector + kVectors <= vectors; vector += kVectors) {
      Block<kCount, kVectors>(pass, item, begin + vector * lanes);
    }
    if (vectors - vector == 2) Block<kCount, 2>(pass, item, begin + vector * lanes);
    if (vectors - vector == 1) Block<kCount, 1>(pass, item, begin + vector * lanes);
  }
}

void Count(const LevelItems& items, const PackedRows& z, int64_t padded, const int32_t* targets,
           const float* target_scores, int32_t* before) {
  const Pass pass = {&items, &z, padded, targets, target_scores, before};
  int64_t item = 1;
  for (; item + kItems <= pass.items->item_rows; item += kItems) AllUsers<kItems>(pass, item);
  for (; item < pass.items->item_rows; ++item) AllUsers<1>(pass, item);
}

// The same additions as Block's for one user, of a few items side by side.
void Score(const LevelItems& items, const float* z, std::span<const int32_t> which, float* scores) {
  constexpr size_t kAtOnce = 8;  // hides the latency of an addition
  const hn::CappedTag<float, 1> d;
  for (size_t begin = 0; begin < which.size(); begin += kAtOnce) {
    const size_t count = std::min(kAtOnce, which.size() - begin);
    float totals[kAtOnce] = {};
    for (int level = 0; level < items.levels; ++level) {
      const int64_t width = items.sizes->width(level);
      const float* x = z + items.sizes->begin(level);
      const float* rows[kAtOnce];
      for (size_t i = 0; i < kAtOnce; ++i) {
        const int32_t item = which[begin + std::min(i, count - 1)];
        rows[i] = items.items[static_cast<size_t>(level)].data() + item * width;
      }
      for (int64_t from = 0; from < width; from += kColumns) {
        const int64_t end = std::min(width, from + kColumns);
        hn::Vec<decltype(d)> sums[kAtOnce];
        for (size_t i = 0; i < kAtOnce; ++i) sums[i] = hn::Zero(d);
        for (int64_t c = from; c < end; ++c) {
          const auto value = hn::Set(d, x[c]);
          for (size_t i = 0; i < kAtOnce; ++i) {
            sums[i] = hn::MulAdd(hn::Set(d, rows[i][c]), value, sums[i]);
          }
        }
        for (size_t i = 0; i < kAtOnce; ++i) totals[i] += hn::GetLane(sums[i]);
      }
      std::copy_n(totals, count, scores + static_cast<size_t>(level) * which.size() + begin);
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nestrec
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nestrec {

HWY_EXPORT(Count);
HWY_EXPORT(Score);

void ScoreItems(const LevelItems& items, const float* z, std::span<const int32_t> which,
                float* scores) {
  HWY_DYNAMIC_DISPATCH(Score)(items, z, which, scores);
}

void CountBefore(const LevelItems& items, const PackedRows& z, std::span<const int32_t> targets,
                 const float* target_scores, int64_t* before) {
  const size_t users = targets.size();
  const size_t levels = static_cast<size_t>(items.levels);
  const size_t panel = static_cast<size_t>(PackedRows::kPanel);
  const size_t padded = (users + panel - 1) / panel * panel;
  std::vector<int32_t> numbers(padded, 0);
  std::copy(targets.begin(), targets.end(), numbers.begin());
  std::vector<float> scores(levels * padded, std::numeric_limits<float>::infinity());
  std::vector<int32_t> counts(levels * padded, 0);
  for (size_t level = 0; level < levels; ++level) {
    std::copy_n(target_scores + level * users, users, scores.data() + level * padded);
  }
  HWY_DYNAMIC_DISPATCH(Count)
  (items, z, static_cast<int64_t>(padded), numbers.data(), scores.data(), counts.data());
  for (size_t level = 0; level < levels; ++level) {
    std::copy_n(counts.data() + level * padded, users, before + level * users);
  }
}

int64_t RankOf(std::span<const float> scores, int32_t target) {
  const float score = scores[static_cast<size_t>(target)];
  int64_t rank = 1;
  for (const float other : scores.subspan(1, static_cast<size_t>(target) - 1))
    rank += other >= score ? 1 : 0;
  for (const float other : scores.subspan(static_cast<size_t>(target) + 1))
    rank += other > score ? 1 : 0;
  return rank;
}

}  // namespace nestrec
#endif
