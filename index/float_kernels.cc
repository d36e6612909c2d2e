#include "index/float_kernels.h"

#include <cstddef>

// Compiles this file once per instruction set; the best one is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "index/float_kernels.cc"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "base/sum_lanes-inl.h"
#include "index/half_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nestrec {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR
constexpr int64_t kPrefetchBytes = 4096;

// Four rows from row `row` on: in the widest vectors, the 8 columns that those leave in shorter
// ones, and one by one.
template <class T, class D, class D8>
HWY_INLINE void FourFloatDots(D d, D8 d8, std::span<const LevelRows<T>> levels, int64_t row,
                              float* HWY_RESTRICT sums) {
  constexpr int64_t kWide = static_cast<int64_t>(hn::MaxLanes(d));
  constexpr int64_t kNarrow = static_cast<int64_t>(hn::MaxLanes(d8));
  hn::Vec<decltype(d)> wide[4];
  hn::Vec<decltype(d8)> narrow[4];
  float rest[4] = {};
  for (int i = 0; i < 4; ++i) {
    wide[i] = hn::Zero(d);
    narrow[i] = hn::Zero(d8);
  }
  for (const LevelRows<T>& level : levels) {
    const float* HWY_RESTRICT query = level.query;
    const T* HWY_RESTRICT rows = level.rows + row * level.width;
    int64_t at = 0;
    for (; at + kWide <= level.width; at += kWide) {
      const auto q = hn::LoadU(d, query + at);
      for (int i = 0; i < 4; ++i) {
        const T* HWY_RESTRICT from = rows + i * level.width + at;
        // Some rows ahead: as many streams as levels are more than hardware follows well.
        hwy::Prefetch(from + kPrefetchBytes / static_cast<int64_t>(sizeof(T)));
        wide[i] = hn::MulAdd(q, LoadFloats(d, from), wide[i]);
      }
    }
    for (; at + kNarrow <= level.width; at += kNarrow) {
      const auto q = hn::LoadU(d8, query + at);
      for (int i = 0; i < 4; ++i) {
        narrow[i] = hn::MulAdd(q, LoadFloats(d8, rows + i * level.width + at), narrow[i]);
      }
    }
    for (; at < level.width; ++at) {
      for (int i = 0; i < 4; ++i) rest[i] += query[at] * FloatOf(rows[i * level.width + at]);
    }
  }
  for (int i = 0; i < 4; ++i) {
    if constexpr (kWide > kNarrow) {
      narrow[i] =
          hn::Add(narrow[i], hn::Add(hn::LowerHalf(d8, wide[i]), hn::UpperHalf(d8, wide[i])));
    } else {
      narrow[i] = hn::Add(narrow[i], wide[i]);
    }
  }
  HWY_ALIGN float four[4];
  SumLanes(d8, narrow[0], narrow[1], narrow[2], narrow[3], four);
  for (int i = 0; i < 4; ++i) sums[row + i] = four[i] + rest[i];
}
#endif

template <class T>
HWY_INLINE void AllFloatDots(std::span<const LevelRows<T>> levels, int64_t count,
                             float* HWY_RESTRICT sums) {
  int64_t row = 0;
#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR
  for (; row + 4 <= count; row += 4) {
    FourFloatDots(hn::CappedTag<float, 16>(), hn::CappedTag<float, 8>(), levels, row, sums);
  }
#endif
  for (; row < count; ++row) {
    float sum = 0;
    for (const LevelRows<T>& level : levels) {
      for (int64_t at = 0; at < level.width; ++at) {
        sum += level.query[at] * FloatOf(level.rows[row * level.width + at]);
      }
    }
    sums[row] = sum;
  }
}

void FloatDotsImpl(std::span<const LevelRows<float>> levels, int64_t count, float* sums) {
  AllFloatDots(levels, count, sums);
}
void HalfDotsImpl(std::span<const LevelRows<nestrec::Half>> levels, int64_t count, float* sums) {
  AllFloatDots(levels, count, sums);
}

void FloatsOfHalvesImpl(std::span<const nestrec::Half> halves, float* HWY_RESTRICT out) {
  const size_t count = halves.size();
  size_t at = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::CappedTag<float, 16> d;
  const size_t lanes = hn::Lanes(d);
  for (; at + lanes <= count; at += lanes) {
    hn::StoreU(LoadFloats(d, halves.data() + at), d, out + at);
  }
#endif
  for (; at < count; ++at) out[at] = FloatOf(halves[at]);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nestrec
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nestrec {

HWY_EXPORT(FloatDotsImpl);
HWY_EXPORT(HalfDotsImpl);
HWY_EXPORT(FloatsOfHalvesImpl);

void FloatDots(std::span<const LevelRows<float>> levels, int64_t count, float* sums) {
  HWY_DYNAMIC_DISPATCH(FloatDotsImpl)(levels, count, sums);
}
void FloatDots(std::span<const LevelRows<Half>> levels, int64_t count, float* sums) {
  HWY_DYNAMIC_DISPATCH(HalfDotsImpl)(levels, count, sums);
}
void FloatsOfHalves(std::span<const Half> halves, float* out) {
  HWY_DYNAMIC_DISPATCH(FloatsOfHalvesImpl)(halves, out);
}

}  // namespace nestrec
#endif  // HWY_ONCE
