#include "index/float_kernels.h"

#include <algorithm>
#include <vector>

// Compiles this file once per instruction set; the best one is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "index/float_kernels.cc"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "base/sum_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nestrec {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR
constexpr int64_t kPrefetchFloats = 1024;  // 4 KiB

// Four rows from row `row` on: in the widest vectors, the 8 columns that those leave in shorter
// ones, and one by one.
template <class D, class D8>
HWY_INLINE void FourFloatDots(D d, D8 d8, std::span<const LevelRows> levels, int64_t row,
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
  for (const LevelRows& level : levels) {
    const float* HWY_RESTRICT query = level.query;
    const float* HWY_RESTRICT rows = level.rows + row * level.width;
    int64_t at = 0;
    for (; at + kWide <= level.width; at += kWide) {
      const auto q = hn::LoadU(d, query + at);
      for (int i = 0; i < 4; ++i) {
        const float* HWY_RESTRICT from = rows + i * level.width + at;
        // Some rows ahead: as many streams as levels are more than hardware follows well.
        hwy::Prefetch(from + kPrefetchFloats);
        wide[i] = hn::MulAdd(q, hn::LoadU(d, from), wide[i]);
      }
    }
    for (; at + kNarrow <= level.width; at += kNarrow) {
      const auto q = hn::LoadU(d8, query + at);
      for (int i = 0; i < 4; ++i) {
        narrow[i] = hn::MulAdd(q, hn::LoadU(d8, rows + i * level.width + at), narrow[i]);
      }
    }
    for (; at < level.width; ++at) {
      for (int i = 0; i < 4; ++i) rest[i] += query[at] * rows[i * level.width + at];
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

void FloatDotsImpl(std::span<const LevelRows> levels, int64_t count, float* HWY_RESTRICT sums) {
  int64_t row = 0;
#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR
  for (; row + 4 <= count; row += 4) {
    FourFloatDots(hn::CappedTag<float, 16>(), hn::CappedTag<float, 8>(), levels, row, sums);
  }
#endif
  for (; row < count; ++row) {
    float sum = 0;
    for (const LevelRows& level : levels) {
      for (int64_t at = 0; at < level.width; ++at) {
        sum += level.query[at] * level.rows[row * level.width + at];
      }
    }
    sums[row] = sum;
  }
}

#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR
// Levels narrower than this are brought together: each alone would be too short a loop.
constexpr int64_t kShortLevel = 64;
constexpr int64_t kMostLevels = 32;

// Four rows as few long parts.
struct FourRows {
  struct Part {
    const float* rows[4];
    int64_t begin, width;
  };
  Part parts[kMostLevels];
  int64_t count = 0;
};

// Of kQueries queries, for the four rows.
template <int kQueries, class D>
HWY_INLINE void FourRowsProducts(D d, const FourRows& four, const float* HWY_RESTRICT query,
                                 int64_t dim, float* HWY_RESTRICT sums, int64_t sums_stride) {
  constexpr int64_t kWide = static_cast<int64_t>(hn::MaxLanes(d));
  hn::Vec<D> sum[kQueries][4];
  for (auto& of_query : sum) {
    for (auto& value : of_query) value = hn::Zero(d);
  }
  for (int64_t p = 0; p < four.count; ++p) {
    const FourRows::Part& part = four.parts[p];
    for (int64_t at = 0; at < part.width; at += kWide) {
      hn::Vec<D> row[4];
      for (int i = 0; i < 4; ++i) row[i] = hn::LoadU(d, part.rows[i] + at);
      for (int q = 0; q < kQueries; ++q) {
        const auto value = hn::LoadU(d, query + q * dim + part.begin + at);
        for (int i = 0; i < 4; ++i) sum[q][i] = hn::MulAdd(value, row[i], sum[q][i]);
      }
    }
  }
  for (int q = 0; q < kQueries; ++q) {
    SumLanes(d, sum[q][0], sum[q][1], sum[q][2], sum[q][3], sums + q * sums_stride);
  }
}

// Whether every part is a whole number of the widest vectors, and there is room for the parts.
bool ProductsFit(std::span<const LevelBlock> levels, int64_t lanes) {
  int64_t gathered = 0;
  for (const LevelBlock& level : levels) {
    if (level.width < kShortLevel && level.begin == gathered) {
      gathered += level.width;
    } else if (level.width % lanes != 0) {
      return false;
    }
  }
  return gathered % lanes == 0 && levels.size() < static_cast<size_t>(kMostLevels);
}
#endif

void FloatProductsImpl(std::span<const LevelBlock> levels, const float* HWY_RESTRICT queries,
                       int64_t query_count, int64_t dim, int64_t count, float* HWY_RESTRICT sums,
                       int64_t sums_stride) {
  int64_t row = 0;
#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR
  const hn::CappedTag<float, 16> d;
  constexpr int kQueries = HWY_MAX_BYTES >= 64 ? 4 : 2;
  HWY_ALIGN float gathered[4][kMostLevels * kShortLevel];
  if (ProductsFit(levels, static_cast<int64_t>(hn::MaxLanes(d)))) {
    for (; row + 4 <= count; row += 4) {
      FourRows four;
      int64_t short_columns = 0;
      for (const LevelBlock& level : levels) {
        const float* const from = level.rows + row * level.width;
        for (int64_t at = 4 * level.width; at < 8 * level.width; at += 16) {
          hwy::Prefetch(from + at);  // the next four
        }
        if (level.width < kShortLevel && level.begin == short_columns) {
          for (int i = 0; i < 4; ++i) {
            std::copy_n(from + i * level.width, level.width, gathered[i] + short_columns);
          }
          short_columns += level.width;
          continue;
        }
        FourRows::Part& part = four.parts[four.count++];
        for (int i = 0; i < 4; ++i) part.rows[i] = from + i * level.width;
        part.begin = level.begin;
        part.width = level.width;
      }
      if (short_columns > 0) {
        FourRows::Part& part = four.parts[four.count++];
        for (int i = 0; i < 4; ++i) part.rows[i] = gathered[i];
        part.begin = 0;
        part.width = short_columns;
      }
      int64_t q = 0;
      for (; q + kQueries <= query_count; q += kQueries) {
        FourRowsProducts<kQueries>(d, four, queries + q * dim, dim, sums + q * sums_stride + row,
                                   sums_stride);
      }
      for (; q < query_count; ++q) {
        FourRowsProducts<1>(d, four, queries + q * dim, dim, sums + q * sums_stride + row,
                            sums_stride);
      }
    }
  }
#endif
  if (row == count) return;
  std::vector<LevelRows> parts;
  for (int64_t q = 0; q < query_count; ++q) {
    parts.clear();
    for (const LevelBlock& level : levels) {
      parts.push_back(
          {queries + q * dim + level.begin, level.rows + row * level.width, level.width});
    }
    FloatDotsImpl(parts, count - row, sums + q * sums_stride + row);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nestrec
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nestrec {

HWY_EXPORT(FloatDotsImpl);
HWY_EXPORT(FloatProductsImpl);

void FloatDots(std::span<const LevelRows> levels, int64_t count, float* sums) {
  HWY_DYNAMIC_DISPATCH(FloatDotsImpl)(levels, count, sums);
}
void FloatProducts(std::span<const LevelBlock> levels, const float* queries, int64_t query_count,
                   int64_t dim, int64_t count, float* sums, int64_t sums_stride) {
  HWY_DYNAMIC_DISPATCH(FloatProductsImpl)
  (levels, queries, query_count, dim, count, sums, sums_stride);
}

}  // namespace nestrec
#endif  // HWY_ONCE
