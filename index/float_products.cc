#include "index/float_products.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <limits>
#include <vector>

// Compiles this file once per instruction set; the best one is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "index/float_products.cc"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "index/half_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nestrec {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// Columns of a few rows that are brought together as floats, at a distance that compilers know.
constexpr int64_t kChunk = 128;

// Columns [begin, end) of kRows rows from row `row` on, whatever levels they are cut into.
template <int kRows, class T>
HWY_INLINE void Gather(std::span<const LevelBlock<T>> levels, int64_t row, int64_t begin,
                       int64_t end, float* HWY_RESTRICT chunk) {
#if HWY_TARGET != HWY_SCALAR
  const hn::CappedTag<float, 16> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
#endif
  for (const LevelBlock<T>& level : levels) {
    const int64_t from = std::max(begin, level.begin);
    const int64_t to = std::min(end, level.begin + level.width);
    if (from >= to) continue;
    const int64_t width = to - from;
    const T* HWY_RESTRICT source = level.rows + row * level.width + (from - level.begin);
    float* HWY_RESTRICT out = chunk + (from - begin);
    for (int r = 0; r < kRows; ++r) {
      int64_t at = 0;
#if HWY_TARGET != HWY_SCALAR
      for (; at + lanes <= width; at += lanes) {
        hwy::Prefetch(source + kRows * level.width + at);  // the next rows
        hn::StoreU(LoadFloats(d, source + at), d, out + at);
      }
#endif
      for (; at < width; ++at) out[at] = FloatOf(source[at]);
      source += level.width;
      out += kChunk;
    }
  }
}

#if HWY_HAVE_SCALABLE || HWY_TARGET == HWY_SCALAR
// Vectors cannot be kept in arrays: the compiler makes what it can of plain loops.
template <class T>
int64_t Products(std::span<const LevelBlock<T>> levels, const QueryPanel& panel,
                 const float* floors, int64_t count, ProductHit* hits) {
  const int64_t stride = panel.stride();
  std::vector<float> sums(static_cast<size_t>(stride));
  float chunk[kChunk];
  ProductHit* end = hits;
  for (int64_t row = 0; row < count; ++row) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (int64_t begin = 0; begin < panel.width(0); begin += kChunk) {
      const int64_t columns = std::min(kChunk, panel.width(0) - begin);
      Gather<1>(levels, row, begin, begin + columns, chunk);
      const float* queries = panel.values() + begin * stride;
      for (int64_t c = 0; c < columns; ++c, queries += stride) {
        for (int64_t q = 0; q < stride; ++q) sums[static_cast<size_t>(q)] += chunk[c] * queries[q];
      }
    }
    for (int64_t q = 0; q < panel.count(); ++q) {
      const float sum = sums[static_cast<size_t>(q)];
      if (sum >= floors[q]) *end++ = {sum, static_cast<int32_t>(row), static_cast<int32_t>(q)};
    }
  }
  return end - hits;
}
#else
// Adds `columns` columns of the chunk for the first kUsed vectors of queries. The sums are an
// array, since GCC would make the constructor of a struct for a processor without vectors.
template <int kUsed, int kRows, int kVectors, class D>
HWY_INLINE void AddColumns(D d, const float* HWY_RESTRICT chunk, int64_t columns,
                           const float* HWY_RESTRICT queries, int64_t stride,
                           hn::Vec<D> (&sums)[kRows][kVectors]) {
  constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(d));
  for (int64_t c = 0; c < columns; ++c) {
    hn::Vec<D> query[kUsed];
    for (int v = 0; v < kUsed; ++v) query[v] = hn::Load(d, queries + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const auto value = hn::Set(d, chunk[r * kChunk + c]);
      for (int v = 0; v < kUsed; ++v) {
        sums[r][v] = hn::MulAdd(value, query[v], sums[r][v]);
      }
    }
    queries += stride;
  }
}

// Rows from `row` on, vectors of queries from query `first` on.
template <int kRows, int kVectors, class D, class T>
HWY_INLINE ProductHit* Tile(D d, std::span<const LevelBlock<T>> levels, const QueryPanel& panel,
                            int64_t row, int64_t first, const float* HWY_RESTRICT floors,
                            ProductHit* HWY_RESTRICT hits) {
  constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(d));
  hn::Vec<D> sums[kRows][kVectors];
  for (auto& of_row : sums) {
    for (auto& value : of_row) value = hn::Zero(d);
  }
  HWY_ALIGN float chunk[kRows * kChunk];
  const int64_t width = panel.width(first);
  const int64_t narrow = kVectors > 1 ? panel.width(first + kLanes) : 0;
  for (int64_t begin = 0; begin < width; begin += kChunk) {
    const int64_t end = std::min(begin + kChunk, width);
    Gather<kRows>(levels, row, begin, end, chunk);
    const float* const queries = panel.values() + begin * panel.stride() + first;
    if (begin < narrow) {
      AddColumns<kVectors>(d, chunk, end - begin, queries, panel.stride(), sums);
    } else {
      AddColumns<1>(d, chunk, end - begin, queries, panel.stride(), sums);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      const float* const least = floors + first + v * kLanes;
      const auto reached = hn::Ge(sums[r][v], hn::Load(d, least));
      if (hn::AllFalse(d, reached)) continue;
      uint8_t bits[8] = {};
      hn::StoreMaskBits(d, reached, bits);
      HWY_ALIGN float lanes[hn::MaxLanes(d)];
      hn::Store(sums[r][v], d, lanes);
      for (uint32_t left = bits[0] | static_cast<uint32_t>(bits[1]) << 8; left != 0;
           left &= left - 1) {
        const int lane = std::countr_zero(left);
        *hits++ = {lanes[lane], static_cast<int32_t>(row + r),
                   static_cast<int32_t>(first + v * kLanes + lane)};
      }
    }
  }
  return hits;
}

// All queries, for kRows rows.
template <int kRows, class D, class T>
HWY_INLINE ProductHit* Rows(D d, std::span<const LevelBlock<T>> levels, const QueryPanel& panel,
                            int64_t row, const float* HWY_RESTRICT floors,
                            ProductHit* HWY_RESTRICT hits) {
  constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(d));
  int64_t first = 0;
  for (; first + 2 * kLanes <= panel.stride(); first += 2 * kLanes) {
    hits = Tile<kRows, 2>(d, levels, panel, row, first, floors, hits);
  }
  if (first < panel.stride()) hits = Tile<kRows, 1>(d, levels, panel, row, first, floors, hits);
  return hits;
}

// As many rows at once as accumulators fit into registers.
template <class D, class T>
HWY_INLINE int64_t AllRows(D d, std::span<const LevelBlock<T>> levels, const QueryPanel& panel,
                           const float* HWY_RESTRICT floors, int64_t count,
                           ProductHit* HWY_RESTRICT hits) {
  constexpr int kRows = HWY_MAX_BYTES >= 64 ? kProductRows : kProductRows / 2;
  ProductHit* end = hits;
  int64_t row = 0;
  for (; row + kRows <= count; row += kRows) {
    end = Rows<kRows>(d, levels, panel, row, floors, end);
  }
  for (; row < count; ++row) end = Rows<1>(d, levels, panel, row, floors, end);
  return end - hits;
}

template <class T>
HWY_INLINE int64_t Products(std::span<const LevelBlock<T>> levels, const QueryPanel& panel,
                            const float* HWY_RESTRICT floors, int64_t count,
                            ProductHit* HWY_RESTRICT hits) {
  // No wider than there are queries.
  if (panel.stride() <= 4) {
    return AllRows(hn::CappedTag<float, 4>(), levels, panel, floors, count, hits);
  }
  if (panel.stride() <= 8) {
    return AllRows(hn::CappedTag<float, 8>(), levels, panel, floors, count, hits);
  }
  return AllRows(hn::CappedTag<float, 16>(), levels, panel, floors, count, hits);
}
#endif

int64_t FloatProductsImpl(std::span<const LevelBlock<float>> levels, const QueryPanel& panel,
                          const float* floors, int64_t count, ProductHit* hits) {
  return Products(levels, panel, floors, count, hits);
}
int64_t HalfProductsImpl(std::span<const LevelBlock<nestrec::Half>> levels, const QueryPanel& panel,
                         const float* floors, int64_t count, ProductHit* hits) {
  return Products(levels, panel, floors, count, hits);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nestrec
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nestrec {
namespace {

// A whole number of the vectors that are used for so many queries.
int64_t StrideFor(int64_t queries) {
  for (const int64_t few : {4, 8}) {
    if (queries <= few) return few;
  }
  return (queries + 15) / 16 * 16;
}

// Floors of all lanes: those of no query are never reached.
AlignedArray<float> FloorsOf(std::span<const float> floors, int64_t stride) {
  AlignedArray<float> all(static_cast<size_t>(stride));
  std::fill_n(all.data(), stride, std::numeric_limits<float>::infinity());
  std::copy(floors.begin(), floors.end(), all.data());
  return all;
}

}  // namespace

HWY_EXPORT(FloatProductsImpl);
HWY_EXPORT(HalfProductsImpl);

QueryPanel::QueryPanel(std::span<const std::span<const float>> queries)
    : stride_(StrideFor(static_cast<int64_t>(queries.size()))),
      values_(queries[0].size() * static_cast<size_t>(stride_)) {
  for (size_t q = 0; q < queries.size(); ++q) {
    widths_.push_back(static_cast<int64_t>(queries[q].size()));
    for (size_t c = 0; c < queries[q].size(); ++c) {
      values_[c * static_cast<size_t>(stride_) + q] = queries[q][c];
    }
  }
}

template <>
int64_t FloatProducts(std::span<const LevelBlock<float>> levels, const QueryPanel& panel,
                      std::span<const float> floors, int64_t count, ProductHit* hits) {
  return HWY_DYNAMIC_DISPATCH(FloatProductsImpl)(
      levels, panel, FloorsOf(floors, panel.stride()).data(), count, hits);
}
template <>
int64_t FloatProducts(std::span<const LevelBlock<Half>> levels, const QueryPanel& panel,
                      std::span<const float> floors, int64_t count, ProductHit* hits) {
  return HWY_DYNAMIC_DISPATCH(HalfProductsImpl)(
      levels, panel, FloorsOf(floors, panel.stride()).data(), count, hits);
}

}  // namespace nestrec
#endif  // HWY_ONCE
