#include "index/vector_kernels.h"

#include <algorithm>
#include <cmath>

// Compiles this file once per instruction set; the best one is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "index/vector_kernels.cc"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/highway.h>

#include "index/half_lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nestrec {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

double SumOfLanes(const double* lane) {
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

// Columns from `whole` on, into the lanes that they belong to.
template <class T>
double FinishDot(const float* query, const T* item, int64_t whole, int64_t width, double* lane) {
  for (int64_t at = whole; at < width; ++at) {
    lane[at % 8] += static_cast<double>(query[at]) * static_cast<double>(FloatOf(item[at]));
  }
  return SumOfLanes(lane);
}

#if !HWY_HAVE_SCALABLE && HWY_HAVE_FLOAT64
// kRows rows at once: one row alone would wait for each of its own additions.
template <int64_t kRows, class T, class Row>
HWY_INLINE void AddCanonicalDotsOf(const float* HWY_RESTRICT query, const Row& row_at,
                                   int64_t width, double* HWY_RESTRICT sums) {
  const T* HWY_RESTRICT items[kRows];
  for (int64_t row = 0; row < kRows; ++row) items[row] = row_at(row);
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
        sum[row][part] =
            hn::MulAdd(q, hn::PromoteTo(d, LoadFloats(df, items[row] + from)), sum[row][part]);
      }
    }
  }
  for (int64_t row = 0; row < kRows; ++row) {
    double lane[8];
    for (int64_t part = 0; part < kParts; ++part) {
      hn::StoreU(sum[row][part], d, lane + part * kLanes);
    }
    sums[row] += FinishDot(query, items[row], whole, width, lane);
  }
}
#endif

// `row_at(i)` is the address of the i-th row.
template <class T, class Row>
HWY_INLINE void AddAllCanonicalDots(const float* HWY_RESTRICT query, const Row& row_at,
                                    int64_t width, int64_t count, double* HWY_RESTRICT sums) {
  int64_t row = 0;
#if !HWY_HAVE_SCALABLE && HWY_HAVE_FLOAT64
  constexpr int64_t kRows = HWY_MAX_BYTES >= 64 ? 8 : 4;
  const auto from = [&](int64_t i) { return row_at(row + i); };
  for (; row + kRows <= count; row += kRows) {
    AddCanonicalDotsOf<kRows, T>(query, from, width, sums + row);
  }
  for (; row < count; ++row) AddCanonicalDotsOf<1, T>(query, from, width, sums + row);
#endif
  for (; row < count; ++row) {
    double lane[8] = {};
    sums[row] += FinishDot(query, row_at(row), 0, width, lane);
  }
}

template <class T>
HWY_INLINE void AddDots(const float* HWY_RESTRICT query, const T* HWY_RESTRICT rows, int64_t width,
                        int64_t count, double* HWY_RESTRICT sums) {
  AddAllCanonicalDots<T>(
      query, [=](int64_t i) { return rows + i * width; }, width, count, sums);
}
template <class T>
HWY_INLINE void AddDotsAt(const float* HWY_RESTRICT query, const T* HWY_RESTRICT rows,
                          int64_t width, const int32_t* HWY_RESTRICT listed, int64_t count,
                          double* HWY_RESTRICT sums) {
  AddAllCanonicalDots<T>(
      query, [=](int64_t i) { return rows + listed[i] * width; }, width, count, sums);
}

void AddCanonicalDotsImpl(const float* query, const float* rows, int64_t width, int64_t count,
                          double* sums) {
  AddDots(query, rows, width, count, sums);
}
void AddHalfDotsImpl(const float* query, const Half* rows, int64_t width, int64_t count,
                     double* sums) {
  AddDots(query, rows, width, count, sums);
}
void AddCanonicalDotsAtImpl(const float* query, const float* rows, int64_t width,
                            const int32_t* listed, int64_t count, double* sums) {
  AddDotsAt(query, rows, width, listed, count, sums);
}
void AddHalfDotsAtImpl(const float* query, const Half* rows, int64_t width, const int32_t* listed,
                       int64_t count, double* sums) {
  AddDotsAt(query, rows, width, listed, count, sums);
}

// kRows rows of the matrix, all columns, for all rows of factors (which are `stride` apart).
template <int64_t kRows>
void AddCombinationsOf(const float* HWY_RESTRICT matrix, int64_t columns, int64_t count,
                       const double* HWY_RESTRICT factors, int64_t stride,
                       double* HWY_RESTRICT out) {
  int64_t c = 0;
#if !HWY_HAVE_SCALABLE && HWY_HAVE_FLOAT64
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (; c + lanes <= columns; c += lanes) {
    hn::Vec<decltype(d)> value[kRows];
    for (int64_t r = 0; r < kRows; ++r) {
      value[r] = hn::PromoteTo(d, hn::LoadU(df, matrix + r * columns + c));
    }
    for (int64_t q = 0; q < count; ++q) {
      auto sum = hn::LoadU(d, out + q * columns + c);
      for (int64_t r = 0; r < kRows; ++r) {
        sum = hn::MulAdd(value[r], hn::Set(d, factors[q * stride + r]), sum);
      }
      hn::StoreU(sum, d, out + q * columns + c);
    }
  }
#endif
  for (; c < columns; ++c) {
    for (int64_t q = 0; q < count; ++q) {
      for (int64_t r = 0; r < kRows; ++r) {
        out[q * columns + c] +=
            static_cast<double>(matrix[r * columns + c]) * factors[q * stride + r];
      }
    }
  }
}

void AddCombinationsImpl(const float* HWY_RESTRICT matrix, int64_t rows, int64_t columns,
                         int64_t count, const double* HWY_RESTRICT factors,
                         double* HWY_RESTRICT out) {
  int64_t r = 0;
  for (; r + 8 <= rows; r += 8) {
    AddCombinationsOf<8>(matrix + r * columns, columns, count, factors + r, rows, out);
  }
  for (; r < rows; ++r) {
    AddCombinationsOf<1>(matrix + r * columns, columns, count, factors + r, rows, out);
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
      const bool first = c + i < row_bytes;
      const int64_t at = first ? c + i : c + i - row_bytes;
      const int shift = first ? 0 : 4;
      if (high != nullptr) high[at] = static_cast<uint8_t>(high[at] | (codes[i] >> 4 << shift));
      if (low != nullptr) low[at] = static_cast<uint8_t>(low[at] | ((codes[i] & 15) << shift));
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

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nestrec
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nestrec {

HWY_EXPORT(AddCanonicalDotsImpl);
HWY_EXPORT(AddCanonicalDotsAtImpl);
HWY_EXPORT(AddHalfDotsImpl);
HWY_EXPORT(AddHalfDotsAtImpl);
HWY_EXPORT(AddCombinationsImpl);
HWY_EXPORT(EncodeGroupImpl);

void AddCanonicalDots(const float* query, const float* rows, int64_t width, int64_t count,
                      double* sums) {
  HWY_DYNAMIC_DISPATCH(AddCanonicalDotsImpl)(query, rows, width, count, sums);
}
void AddCanonicalDotsAt(const float* query, const float* rows, int64_t width, const int32_t* listed,
                        int64_t count, double* sums) {
  HWY_DYNAMIC_DISPATCH(AddCanonicalDotsAtImpl)(query, rows, width, listed, count, sums);
}
void AddCanonicalDots(const float* query, const Half* rows, int64_t width, int64_t count,
                      double* sums) {
  HWY_DYNAMIC_DISPATCH(AddHalfDotsImpl)(query, rows, width, count, sums);
}
void AddCanonicalDotsAt(const float* query, const Half* rows, int64_t width, const int32_t* listed,
                        int64_t count, double* sums) {
  HWY_DYNAMIC_DISPATCH(AddHalfDotsAtImpl)(query, rows, width, listed, count, sums);
}
void AddCombinations(const float* matrix, int64_t rows, int64_t columns, int64_t count,
                     const double* factors, double* out) {
  HWY_DYNAMIC_DISPATCH(AddCombinationsImpl)(matrix, rows, columns, count, factors, out);
}
EncodedGroup EncodeGroup(const float* coordinates, const float* inverse, const float* steps,
                         int64_t width, int64_t row_bytes, uint8_t* high, uint8_t* low) {
  return HWY_DYNAMIC_DISPATCH(EncodeGroupImpl)(coordinates, inverse, steps, width, row_bytes, high,
                                               low);
}
}  // namespace nestrec
#endif  // HWY_ONCE
