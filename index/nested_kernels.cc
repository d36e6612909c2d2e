#include "index/nested_kernels.h"

#include <algorithm>
#include <cmath>

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
template <size_t kBytes>
using ByteTag = hn::CappedTag<uint8_t, HWY_HAVE_SCALABLE ? size_t{16} : kBytes>;

// sum[i] + the products of four unsigned bytes (at most 127) and four signed ones.
#if HWY_MAJOR > 1 || (HWY_MAJOR == 1 && HWY_MINOR >= 1)
template <class D, class U, class I>
HWY_INLINE hn::Vec<D> DotQuads(D d, U codes, I weights, hn::Vec<D> sum) {
  return hn::SumOfMulQuadAccumulate(d, codes, weights, sum);
}
#elif HWY_ARCH_X86
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

template <bool kNibbles>
void AddDots(const CodeRows& rows, int64_t begin, int64_t count, const RowWeights& weights,
             float* sums) {
  const uint8_t* const data = rows.data + begin * rows.row_bytes;
  const int64_t row_bytes = rows.row_bytes;
  AddDotsOfWidth<kNibbles>([=](int64_t i) { return data + i * row_bytes; }, row_bytes, count,
                           weights, sums);
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
  AddDots<false>(rows, begin, count, weights, sums);
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

double SumOfLanes(const double* lane) {
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

// Columns from `whole` on, into the lanes that they belong to.
double FinishDot(const float* query, const float* item, int64_t whole, int64_t width,
                 double* lane) {
  for (int64_t at = whole; at < width; ++at) {
    lane[at % 8] += static_cast<double>(query[at]) * static_cast<double>(item[at]);
  }
  return SumOfLanes(lane);
}

#if !HWY_HAVE_SCALABLE && HWY_HAVE_FLOAT64
// kRows rows at once: one row alone would wait for each of its own additions.
template <int64_t kRows>
HWY_INLINE void AddCanonicalDotsOf(const float* HWY_RESTRICT query, const float* HWY_RESTRICT rows,
                                   int64_t width, double* HWY_RESTRICT sums) {
  const hn::CappedTag<double, 8> d;
  const hn::Rebind<float, decltype(d)> df;
  constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(hn::CappedTag<double, 8>()));
  constexpr int64_t kParts = 8 / kLanes;
  const int64_t whole = width / 8 * 8;
  hn::Vec<decltype(d)> sum[kRows][kParts];
  for (auto& row : sum) {
    for (auto& part : row) part = hn::Zero(d);
  }
  for (int64_t at = 0; at < whole; at += 8) {
    for (int64_t part = 0; part < kParts; ++part) {
      const int64_t from = at + part * kLanes;
      const auto q = hn::PromoteTo(d, hn::LoadU(df, query + from));
      for (int64_t row = 0; row < kRows; ++row) {
        sum[row][part] = hn::MulAdd(q, hn::PromoteTo(d, hn::LoadU(df, rows + row * width + from)),
                                    sum[row][part]);
      }
    }
  }
  for (int64_t row = 0; row < kRows; ++row) {
    double lane[8];
    for (int64_t part = 0; part < kParts; ++part) {
      hn::StoreU(sum[row][part], d, lane + part * kLanes);
    }
    sums[row] += FinishDot(query, rows + row * width, whole, width, lane);
  }
}
#endif

void AddCanonicalDotsImpl(const float* HWY_RESTRICT query, const float* HWY_RESTRICT rows,
                          int64_t width, int64_t count, double* HWY_RESTRICT sums) {
  int64_t row = 0;
#if !HWY_HAVE_SCALABLE && HWY_HAVE_FLOAT64
  constexpr int64_t kRows = HWY_MAX_BYTES >= 64 ? 8 : 4;
  for (; row + kRows <= count; row += kRows) {
    AddCanonicalDotsOf<kRows>(query, rows + row * width, width, sums + row);
  }
  for (; row < count; ++row) {
    AddCanonicalDotsOf<1>(query, rows + row * width, width, sums + row);
  }
#endif
  for (; row < count; ++row) {
    double lane[8] = {};
    sums[row] += FinishDot(query, rows + row * width, 0, width, lane);
  }
}

void AddCombinationImpl(const float* HWY_RESTRICT matrix, int64_t stride, int64_t rows,
                        int64_t columns, const double* HWY_RESTRICT factors,
                        double* HWY_RESTRICT out) {
#if HWY_HAVE_FLOAT64
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
#else
  const int64_t lanes = columns + 1;
#endif
  constexpr int64_t kRows = 8;  // so that `out` is read and written once for eight rows
  int64_t row = 0;
  for (; row + kRows <= rows; row += kRows) {
    const float* HWY_RESTRICT at = matrix + row * stride;
    int64_t c = 0;
#if HWY_HAVE_FLOAT64
    for (; c + lanes <= columns; c += lanes) {
      auto sum = hn::LoadU(d, out + c);
      for (int64_t r = 0; r < kRows; ++r) {
        sum = hn::MulAdd(hn::PromoteTo(d, hn::LoadU(df, at + r * stride + c)),
                         hn::Set(d, factors[row + r]), sum);
      }
      hn::StoreU(sum, d, out + c);
    }
#endif
    for (; c < columns; ++c) {
      for (int64_t r = 0; r < kRows; ++r) out[c] += at[r * stride + c] * factors[row + r];
    }
  }
  for (; row < rows; ++row) {
    for (int64_t c = 0; c < columns; ++c) out[c] += matrix[row * stride + c] * factors[row];
  }
}

EncodedGroup EncodeGroupImpl(const float* HWY_RESTRICT coordinates,
                             const float* HWY_RESTRICT inverse, const float* HWY_RESTRICT steps,
                             int64_t width, int64_t row_bytes, uint8_t* HWY_RESTRICT high,
                             uint8_t* HWY_RESTRICT low) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto square = hn::Zero(d);
  auto error4 = hn::Zero(d);
  auto error8 = hn::Zero(d);
  auto value4 = hn::Zero(d);
  HWY_ALIGN int32_t codes[HWY_MAX_BYTES / sizeof(int32_t)];
  HWY_ALIGN float padded[3][HWY_MAX_BYTES / sizeof(float)];
  for (int64_t c = 0; c < width; c += lanes) {
    const float* from[3] = {coordinates + c, inverse + c, steps + c};
    const int64_t here = std::min(lanes, width - c);
    if (here < lanes) {  // columns past the end: coordinate, step and what is left are 0
      for (int i = 0; i < 3; ++i) {
        std::fill(padded[i], padded[i] + lanes, 0.0f);
        std::copy(from[i], from[i] + here, padded[i]);
        from[i] = padded[i];
      }
    }
    const auto x = hn::LoadU(d, from[0]);
    const auto step = hn::LoadU(d, from[2]);
    const auto wide =
        hn::MulAdd(hn::Mul(x, hn::LoadU(d, from[1])), hn::Set(d, 16.0f), hn::Set(d, 128.0f));
    const auto code =
        hn::ConvertTo(di, hn::Floor(hn::Min(hn::Max(wide, hn::Zero(d)), hn::Set(d, 255.0f))));
    hn::StoreU(code, di, codes);
    for (int64_t i = 0; i < here; ++i) {
      const int64_t column = c + i;
      const uint8_t upper = static_cast<uint8_t>(codes[i] >> 4);
      const uint8_t lower = static_cast<uint8_t>(codes[i] & 15);
      if (column < row_bytes) {
        high[column] = static_cast<uint8_t>((high[column] & 0xf0) | upper);
        low[column] = static_cast<uint8_t>((low[column] & 0xf0) | lower);
      } else {
        uint8_t& high_byte = high[column - row_bytes];
        uint8_t& low_byte = low[column - row_bytes];
        high_byte = static_cast<uint8_t>((high_byte & 0x0f) | (upper << 4));
        low_byte = static_cast<uint8_t>((low_byte & 0x0f) | (lower << 4));
      }
    }
    const auto level4 = hn::Sub(hn::ConvertTo(d, hn::ShiftRight<4>(code)), hn::Set(d, 7.5f));
    const auto level8 =
        hn::Mul(hn::Sub(hn::ConvertTo(d, code), hn::Set(d, 127.5f)), hn::Set(d, 1.0f / 16));
    const auto left4 = hn::Sub(x, hn::Mul(level4, step));
    const auto left8 = hn::Sub(x, hn::Mul(level8, step));
    square = hn::MulAdd(x, x, square);
    error4 = hn::MulAdd(left4, left4, error4);
    error8 = hn::MulAdd(left8, left8, error8);
    value4 = hn::MulAdd(level4, level4, value4);
  }
  const auto total = [&](auto v) { return hn::GetLane(hn::SumOfLanes(d, v)); };
  return {.square = total(square),
          .error4 = total(error4),
          .error8 = total(error8),
          .value4 = total(value4)};
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
HWY_EXPORT(SelectNotBelowImpl);
HWY_EXPORT(AddCanonicalDotsImpl);
HWY_EXPORT(AddCombinationImpl);
HWY_EXPORT(EncodeGroupImpl);
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
int64_t SelectNotBelow(const float* values, int64_t count, float threshold, int32_t first,
                       int32_t* selected) {
  return HWY_DYNAMIC_DISPATCH(SelectNotBelowImpl)(values, count, threshold, first, selected);
}
void AddCanonicalDots(const float* query, const float* rows, int64_t width, int64_t count,
                      double* sums) {
  HWY_DYNAMIC_DISPATCH(AddCanonicalDotsImpl)(query, rows, width, count, sums);
}
void AddCombination(const float* matrix, int64_t stride, int64_t rows, int64_t columns,
                    const double* factors, double* out) {
  HWY_DYNAMIC_DISPATCH(AddCombinationImpl)(matrix, stride, rows, columns, factors, out);
}
EncodedGroup EncodeGroup(const float* coordinates, const float* inverse, const float* steps,
                         int64_t width, int64_t row_bytes, uint8_t* high, uint8_t* low) {
  return HWY_DYNAMIC_DISPATCH(EncodeGroupImpl)(coordinates, inverse, steps, width, row_bytes, high,
                                               low);
}
const char* NestedKernelTarget() { return HWY_DYNAMIC_DISPATCH(TargetName)(); }

}  // namespace nestrec
#endif  // HWY_ONCE
