#include "index/nested_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

// Products of bytes are several times faster with AVX-512's VNNI, which Highway compiles on
// request.
#define HWY_WANT_AVX3_DL 1
// Compiles this file once per instruction set; the best one is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "index/nested_kernels.cc"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace nestrec {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR
template <bool kNibbles, class Row>
void AddDotsOfWidth(const Row& row, int64_t row_bytes, int64_t count, const RowWeights& weights,
                    float* sums) {
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t* const codes = row(i);
    int32_t dot = 0;
    for (int64_t at = 0; at < row_bytes; ++at) {
      dot += kNibbles ? (codes[at] & 15) * weights.low[at] + (codes[at] >> 4) * weights.high[at]
                      : codes[at] * weights.low[at];
    }
    if (kNibbles) dot = 2 * dot - weights.offset;
    sums[i] += weights.scale * static_cast<float>(dot);
  }
}
#else
// Vectors of at most this many bytes; those of unknown length are used as short ones.
#if HWY_HAVE_SCALABLE
template <size_t>
using ByteTag = hn::CappedTag<uint8_t, 16>;
#else
template <size_t kBytes>
using ByteTag = hn::CappedTag<uint8_t, kBytes>;
#endif

// sum[i] + the products of four unsigned bytes (at most 127) and four signed ones.
#if HWY_MAJOR > 1 || (HWY_MAJOR == 1 && HWY_MINOR >= 1)
template <class D, class U, class I>
HWY_INLINE hn::Vec<D> DotQuads(D d, U codes, I weights, hn::Vec<D> sum) {
  return hn::SumOfMulQuadAccumulate(d, codes, weights, sum);
}
#elif HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128  // which Clang adds
// Sums of pairs fit 16 bits, since codes end at 127.
HWY_INLINE __m128i AddQuads(__m128i sum, __m128i codes, __m128i weights) {
  return _mm_add_epi32(sum, _mm_madd_epi16(_mm_maddubs_epi16(codes, weights), _mm_set1_epi16(1)));
}
#if HWY_TARGET <= HWY_AVX3_DL
// In assembly, because Highway 1.0.3 does not tell the compiler that this target has the
// instruction.
HWY_INLINE __m256i AddQuads(__m256i sum, __m256i codes, __m256i weights) {
  __asm__("%{evex%} vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(weights));
  return sum;
}
HWY_INLINE __m512i AddQuads(__m512i sum, __m512i codes, __m512i weights) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(weights));
  return sum;
}
#else
#if HWY_TARGET <= HWY_AVX2
HWY_INLINE __m256i AddQuads(__m256i sum, __m256i codes, __m256i weights) {
  return _mm256_add_epi32(
      sum, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, weights), _mm256_set1_epi16(1)));
}
#endif
#if HWY_TARGET <= HWY_AVX3
HWY_INLINE __m512i AddQuads(__m512i sum, __m512i codes, __m512i weights) {
  return _mm512_add_epi32(
      sum, _mm512_madd_epi16(_mm512_maddubs_epi16(codes, weights), _mm512_set1_epi16(1)));
}
#endif
#endif
template <class D, class U, class I>
HWY_INLINE hn::Vec<D> DotQuads(D /*d*/, U codes, I weights, hn::Vec<D> sum) {
  return hn::Vec<D>{AddQuads(sum.raw, codes.raw, weights.raw)};
}
#else
template <class D, class U, class I>
HWY_INLINE hn::Vec<D> DotQuads(D d, U codes, I weights, hn::Vec<D> sum) {
  const hn::RebindToUnsigned<D> du;
  const auto c = hn::BitCast(du, codes);
  const auto w = hn::BitCast(d, weights);
  const auto byte = hn::Set(du, 255);
  const auto product = [&](auto code, auto weight) {
    return hn::Mul(hn::BitCast(d, code), hn::ShiftRight<24>(weight));
  };
  sum = hn::Add(sum, product(hn::And(c, byte), hn::ShiftLeft<24>(w)));
  sum = hn::Add(sum, product(hn::And(hn::ShiftRight<8>(c), byte), hn::ShiftLeft<16>(w)));
  sum = hn::Add(sum, product(hn::And(hn::ShiftRight<16>(c), byte), hn::ShiftLeft<8>(w)));
  return hn::Add(sum, product(hn::ShiftRight<24>(c), w));
}
#endif

// Adds the 128-bit blocks of a vector.
template <class D>
HWY_INLINE auto FoldBlocks(D d, hn::Vec<D> v) {
#if !HWY_HAVE_SCALABLE
  if constexpr (hn::MaxLanes(D()) > 4) {
    const hn::Half<D> half;
    return FoldBlocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  } else {
    return v;
  }
#else
  return v;
#endif
}

// The four vectors' sums as the four lanes of one.
template <class D>
HWY_INLINE auto SumsOfFour(D d, hn::Vec<D> a, hn::Vec<D> b, hn::Vec<D> c, hn::Vec<D> e) {
  const hn::Repartition<int64_t, D> d64;
  const auto ab = hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b));
  const auto ce = hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e));
  const auto ab64 = hn::BitCast(d64, ab);
  const auto ce64 = hn::BitCast(d64, ce);
  return FoldBlocks(d, hn::Add(hn::BitCast(d, hn::InterleaveLower(d64, ab64, ce64)),
                               hn::BitCast(d, hn::InterleaveUpper(d64, ab64, ce64))));
}

template <bool kNibbles, class D8>
HWY_INLINE auto SumsOfRows(D8 d8, const uint8_t* HWY_RESTRICT row0,
                           const uint8_t* HWY_RESTRICT row1, const uint8_t* HWY_RESTRICT row2,
                           const uint8_t* HWY_RESTRICT row3, int64_t row_bytes,
                           const RowWeights& weights) {
  const hn::Repartition<int8_t, D8> di8;
  const hn::Repartition<uint16_t, D8> d16;
  const hn::Repartition<int32_t, D8> d32;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d8));
  auto sum0 = hn::Zero(d32);
  auto sum1 = hn::Zero(d32);
  auto sum2 = hn::Zero(d32);
  auto sum3 = hn::Zero(d32);
  const auto mask = hn::Set(d8, 15);
  for (int64_t at = 0; at < row_bytes; at += lanes) {
    const auto low = hn::LoadU(di8, weights.low + at);
    if constexpr (kNibbles) {
      const auto high = hn::LoadU(di8, weights.high + at);
      const auto add = [&](const uint8_t* HWY_RESTRICT row, auto sum) {
        const auto codes = hn::LoadU(d8, row + at);
        const auto upper =
            hn::And(hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(d16, codes))), mask);
        return DotQuads(d32, upper, high, DotQuads(d32, hn::And(codes, mask), low, sum));
      };
      sum0 = add(row0, sum0);
      sum1 = add(row1, sum1);
      sum2 = add(row2, sum2);
      sum3 = add(row3, sum3);
    } else {
      sum0 = DotQuads(d32, hn::LoadU(d8, row0 + at), low, sum0);
      sum1 = DotQuads(d32, hn::LoadU(d8, row1 + at), low, sum1);
      sum2 = DotQuads(d32, hn::LoadU(d8, row2 + at), low, sum2);
      sum3 = DotQuads(d32, hn::LoadU(d8, row3 + at), low, sum3);
    }
  }
  return SumsOfFour(d32, sum0, sum1, sum2, sum3);
}

// `row(i)` is the address of the i-th row to add.
template <bool kNibbles, class D8, class Row>
HWY_INLINE void AddDotsOf(D8 d8, const Row& row, int64_t row_bytes, int64_t count,
                          const RowWeights& weights, float* HWY_RESTRICT sums) {
  const hn::CappedTag<int32_t, 4> d32;
  const hn::RebindToFloat<decltype(d32)> df;
  const auto offset = hn::Set(d32, weights.offset);
  const auto scale = hn::Set(df, weights.scale);
  const auto term = [&](auto dots) {
    if constexpr (kNibbles) dots = hn::Sub(hn::Add(dots, dots), offset);
    return hn::ConvertTo(df, dots);
  };
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const auto dots =
        SumsOfRows<kNibbles>(d8, row(i), row(i + 1), row(i + 2), row(i + 3), row_bytes, weights);
    hn::StoreU(hn::MulAdd(scale, term(dots), hn::LoadU(df, sums + i)), df, sums + i);
  }
  for (; i < count; ++i) {
    const auto dots = SumsOfRows<kNibbles>(d8, row(i), row(i), row(i), row(i), row_bytes, weights);
    sums[i] = hn::GetLane(hn::MulAdd(scale, term(dots), hn::Set(df, sums[i])));
  }
}

template <bool kNibbles, class Row>
HWY_INLINE void AddDotsOfWidth(const Row& row, int64_t row_bytes, int64_t count,
                               const RowWeights& weights, float* sums) {
  if (row_bytes == 64) {  // lets the compiler keep the weights in registers
    AddDotsOf<kNibbles>(ByteTag<64>(), row, 64, count, weights, sums);
  } else if (row_bytes % 64 == 0) {
    AddDotsOf<kNibbles>(ByteTag<64>(), row, row_bytes, count, weights, sums);
  } else if (row_bytes == 32) {
    AddDotsOf<kNibbles>(ByteTag<32>(), row, 32, count, weights, sums);
  } else if (row_bytes % 32 == 0) {
    AddDotsOf<kNibbles>(ByteTag<32>(), row, row_bytes, count, weights, sums);
  } else {
    AddDotsOf<kNibbles>(ByteTag<16>(), row, row_bytes, count, weights, sums);
  }
}

#endif  // HWY_TARGET == HWY_SCALAR

// So far ahead rows are asked for: hardware begins anew at every page, and at every array that a
// block of items goes through. Asking past the end does no harm.
constexpr int64_t kPrefetchBytes = 4096;

#if HWY_TARGET != HWY_SCALAR && !HWY_HAVE_SCALABLE
// Byte rows of one 128-bit block that lie one after the other: a vector holds several.
HWY_INLINE int64_t AddShortByteDots(const uint8_t* HWY_RESTRICT rows, int64_t count,
                                    const RowWeights& weights, float* HWY_RESTRICT sums) {
  const ByteTag<64> d8;
  const hn::Repartition<int8_t, decltype(d8)> di8;
  const hn::Repartition<int32_t, decltype(d8)> d32;
  const hn::Repartition<int64_t, decltype(d8)> d64;
  const hn::RebindToFloat<decltype(d32)> df;
  constexpr int64_t kBlocks = static_cast<int64_t>(hn::MaxLanes(ByteTag<64>())) / 16;
  constexpr int64_t kVector = 16 * kBlocks;
  const auto low = hn::LoadDup128(di8, weights.low);
  const auto scale = hn::Set(df, weights.scale);
  // Lane 4 b + i of the four vectors' sums is that of row kBlocks i + b; the table turns it round.
  HWY_ALIGN int32_t order[4 * kBlocks];
  for (int64_t row = 0; row < 4 * kBlocks; ++row) {
    order[row] = static_cast<int32_t>(4 * (row % kBlocks) + row / kBlocks);
  }
  const auto table = hn::SetTableIndices(d32, order);
  int64_t i = 0;
  for (; i + 4 * kBlocks <= count; i += 4 * kBlocks) {
    const uint8_t* HWY_RESTRICT at = rows + i * 16;
    for (int64_t line = 0; line < 4 * kVector; line += 64) {
      hwy::Prefetch(at + kPrefetchBytes + line);
    }
    const auto dots = [&](int64_t vector) {
      return DotQuads(d32, hn::LoadU(d8, at + vector * kVector), low, hn::Zero(d32));
    };
    const auto a = dots(0);
    const auto b = dots(1);
    const auto c = dots(2);
    const auto e = dots(3);
    const auto ab =
        hn::BitCast(d64, hn::Add(hn::InterleaveLower(d32, a, b), hn::InterleaveUpper(d32, a, b)));
    const auto ce =
        hn::BitCast(d64, hn::Add(hn::InterleaveLower(d32, c, e), hn::InterleaveUpper(d32, c, e)));
    const auto all = hn::Add(hn::BitCast(d32, hn::InterleaveLower(d64, ab, ce)),
                             hn::BitCast(d32, hn::InterleaveUpper(d64, ab, ce)));
    const auto ordered = hn::TableLookupLanes(all, table);
    hn::StoreU(hn::MulAdd(scale, hn::ConvertTo(df, ordered), hn::LoadU(df, sums + i)), df,
               sums + i);
  }
  return i;
}
#endif

template <bool kNibbles>
void AddDots(const CodeRows& rows, int64_t begin, int64_t count, const RowWeights& weights,
             float* sums) {
  const uint8_t* const data = rows.data + begin * rows.row_bytes;
  const int64_t row_bytes = rows.row_bytes;
  AddDotsOfWidth<kNibbles>(
      [=](int64_t i) {
        const uint8_t* const row = data + i * row_bytes;
        for (int64_t at = 0; at < row_bytes; at += 64) hwy::Prefetch(row + kPrefetchBytes + at);
        return row;
      },
      row_bytes, count, weights, sums);
}

// So many listed rows ahead are asked for, since their addresses follow no pattern.
constexpr int64_t kAhead = 16;

template <bool kNibbles>
void AddDotsAt(const CodeRows& rows, const int32_t* listed, int64_t count,
               const RowWeights& weights, float* sums) {
  const uint8_t* const data = rows.data;
  const int64_t row_bytes = rows.row_bytes;
  AddDotsOfWidth<kNibbles>(
      [=](int64_t i) {
        const uint8_t* const ahead = data + listed[std::min(i + kAhead, count - 1)] * row_bytes;
        for (int64_t at = 0; at < row_bytes; at += 64) hwy::Prefetch(ahead + at);
        return data + listed[i] * row_bytes;
      },
      row_bytes, count, weights, sums);
}

void AddNibbleDotsImpl(const CodeRows& rows, int64_t begin, int64_t count,
                       const RowWeights& weights, float* sums) {
  AddDots<true>(rows, begin, count, weights, sums);
}
void AddByteDotsImpl(const CodeRows& rows, int64_t begin, int64_t count, const RowWeights& weights,
                     float* sums) {
  int64_t done = 0;
#if HWY_TARGET != HWY_SCALAR && !HWY_HAVE_SCALABLE
  if (rows.row_bytes == 16) {
    done = AddShortByteDots(rows.data + begin * 16, count, weights, sums);
  }
#endif
  AddDots<false>(rows, begin + done, count - done, weights, sums + done);
}
void AddNibbleDotsAtImpl(const CodeRows& rows, const int32_t* listed, int64_t count,
                         const RowWeights& weights, float* sums) {
  AddDotsAt<true>(rows, listed, count, weights, sums);
}
void AddByteDotsAtImpl(const CodeRows& rows, const int32_t* listed, int64_t count,
                       const RowWeights& weights, float* sums) {
  AddDotsAt<false>(rows, listed, count, weights, sums);
}

void MultiplyBoundsImpl(const float* HWY_RESTRICT scales, const float* HWY_RESTRICT sums,
                        const float* HWY_RESTRICT slacks, int64_t count,
                        float* HWY_RESTRICT bounds) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(hn::Mul(hn::LoadU(d, scales + i),
                       hn::Add(hn::LoadU(d, sums + i), hn::LoadU(d, slacks + i))),
               d, bounds + i);
  }
  for (; i < count; ++i) bounds[i] = scales[i] * (sums[i] + slacks[i]);
}

float HighestImpl(const float* HWY_RESTRICT values, int64_t count) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto highest = hn::Set(d, -kInfinity);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto v = hn::LoadU(d, values + i);
    highest = hn::Max(highest, hn::IfThenElse(hn::Eq(v, v), v, hn::Set(d, kInfinity)));
  }
  float result = hn::GetLane(hn::MaxOfLanes(d, highest));
  for (; i < count; ++i) result = std::max(result, std::isnan(values[i]) ? kInfinity : values[i]);
  return result;
}

int64_t SelectNotBelowImpl(const float* HWY_RESTRICT values, int64_t count, float threshold,
                           int32_t first, int32_t* HWY_RESTRICT selected) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto limit = hn::Set(d, threshold);
  int64_t found = 0;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto keep = hn::Not(hn::Lt(hn::LoadU(d, values + i), limit));
    if (hn::AllFalse(d, keep)) continue;
    const auto numbers = hn::Iota(di, first + static_cast<int32_t>(i));
    found += static_cast<int64_t>(
        hn::CompressStore(numbers, hn::RebindMask(di, keep), di, selected + found));
  }
  for (; i < count; ++i) {
    if (!(values[i] < threshold)) selected[found++] = first + static_cast<int32_t>(i);
  }
  return found;
}

const char* TargetName() { return hwy::TargetName(HWY_TARGET); }

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nestrec
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nestrec {

HWY_EXPORT(AddNibbleDotsImpl);
HWY_EXPORT(AddByteDotsImpl);
HWY_EXPORT(AddNibbleDotsAtImpl);
HWY_EXPORT(AddByteDotsAtImpl);
HWY_EXPORT(MultiplyBoundsImpl);
HWY_EXPORT(HighestImpl);
HWY_EXPORT(SelectNotBelowImpl);
HWY_EXPORT(TargetName);

void AddNibbleDots(const CodeRows& rows, int64_t begin, int64_t count, const RowWeights& weights,
                   float* sums) {
  HWY_DYNAMIC_DISPATCH(AddNibbleDotsImpl)(rows, begin, count, weights, sums);
}
void AddByteDots(const CodeRows& rows, int64_t begin, int64_t count, const RowWeights& weights,
                 float* sums) {
  HWY_DYNAMIC_DISPATCH(AddByteDotsImpl)(rows, begin, count, weights, sums);
}
void AddNibbleDotsAt(const CodeRows& rows, const int32_t* listed, int64_t count,
                     const RowWeights& weights, float* sums) {
  HWY_DYNAMIC_DISPATCH(AddNibbleDotsAtImpl)(rows, listed, count, weights, sums);
}
void AddByteDotsAt(const CodeRows& rows, const int32_t* listed, int64_t count,
                   const RowWeights& weights, float* sums) {
  HWY_DYNAMIC_DISPATCH(AddByteDotsAtImpl)(rows, listed, count, weights, sums);
}
void MultiplyBounds(const float* scales, const float* sums, const float* slacks, int64_t count,
                    float* bounds) {
  HWY_DYNAMIC_DISPATCH(MultiplyBoundsImpl)(scales, sums, slacks, count, bounds);
}
float Highest(const float* values, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(HighestImpl)(values, count);
}
int64_t SelectNotBelow(const float* values, int64_t count, float threshold, int32_t first,
                       int32_t* selected) {
  return HWY_DYNAMIC_DISPATCH(SelectNotBelowImpl)(values, count, threshold, first, selected);
}
const char* NestedKernelTarget() { return HWY_DYNAMIC_DISPATCH(TargetName)(); }

}  // namespace nestrec
#endif  // HWY_ONCE
