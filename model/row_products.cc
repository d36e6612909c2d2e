#include "model/row_products.h"

#include <algorithm>

// Compiles this file once per instruction set; the best one is chosen at run time. Without SVE,
// whose vectors cannot be kept in arrays: NEON is there as well.
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "model/row_products.cc"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "base/sum_lanes-inl.h"
#include "model/into.h"

HWY_BEFORE_NAMESPACE();
namespace nestrec {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::CappedTag<float, 16>;
using V = hn::Vec<Tag>;

// Sums are kept in registers, one vector per pair of a weight row and an x row: 16 of them where
// there are 32 registers, 8 where there are 16. With a single x row it takes 8 weight rows to hide
// the latency of an addition.
constexpr int kWeightRows = 4;
#if HWY_TARGET == HWY_SSSE3 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_AVX2
constexpr int kRows = 2;
#else
constexpr int kRows = 4;
#endif
constexpr int kWeightRowsOfOne = 8;
constexpr int64_t kPrefetchFloats = 4096;  // 16 KiB: a third of a first-level cache

// Every dot product ends in SumLanes, whatever block it was part of.
//
// kWeights x kXs dot products. The same order of additions for every kWeights and kXs.
template <Into kInto, int kWeights, int kXs>
HWY_INLINE void Block(const RowProduct& p, int64_t output, int64_t row) {
  const Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const float* HWY_RESTRICT weight = p.weight + output * p.columns;
  const float* HWY_RESTRICT x = p.x + row * p.x_stride;
  V sums[kWeights][kXs];
  for (int w = 0; w < kWeights; ++w) {
    for (int i = 0; i < kXs; ++i) sums[w][i] = hn::Zero(d);
  }
  int64_t c = 0;
  for (; c + lanes <= p.columns; c += lanes) {
    V values[kXs];
    for (int i = 0; i < kXs; ++i) values[i] = hn::LoadU(d, x + i * p.x_stride + c);
    for (int w = 0; w < kWeights; ++w) {
      if constexpr (kXs == 1 && kWeights == kWeightRowsOfOne) {
        // Ahead in the order of the bytes: eight rows at once are more streams than hardware
        // follows.
        hwy::Prefetch(weight + kPrefetchFloats + c * kWeightRowsOfOne + w * lanes);
      }
      const V factor = hn::LoadU(d, weight + w * p.columns + c);
      for (int i = 0; i < kXs; ++i) sums[w][i] = hn::MulAdd(factor, values[i], sums[w][i]);
    }
  }
#if !HWY_HAVE_SCALABLE && HWY_TARGET != HWY_SCALAR
  if constexpr (hn::MaxLanes(d) == 16) {
    // The narrowest levels have 8 columns.
    const hn::Half<Tag> half;
    if (c + 8 <= p.columns) {
      for (int w = 0; w < kWeights; ++w) {
        const V factor = hn::ZeroExtendVector(d, hn::LoadU(half, weight + w * p.columns + c));
        for (int i = 0; i < kXs; ++i) {
          const V value = hn::ZeroExtendVector(d, hn::LoadU(half, x + i * p.x_stride + c));
          sums[w][i] = hn::MulAdd(factor, value, sums[w][i]);
        }
      }
      c += 8;
    }
  }
#endif
  for (int i = 0; i < kXs; ++i) {
    for (int w = 0; w < kWeights; w += 4) {
      float of_lanes[4];
      if constexpr (kWeights >= 4) {
        SumLanes(d, sums[w][i], sums[w + 1][i], sums[w + 2][i], sums[w + 3][i], of_lanes);
      } else {
        SumLanes(d, sums[w][i], hn::Zero(d), hn::Zero(d), hn::Zero(d), of_lanes);
      }
      for (int j = 0; j < std::min(kWeights, 4); ++j) {
        float sum = of_lanes[j];
        for (int64_t tail = c; tail < p.columns; ++tail) {
          sum += weight[(w + j) * p.columns + tail] * x[i * p.x_stride + tail];
        }
        Store<kInto>(sum, p.bias, output + w + j, p.y + (row + i) * p.y_stride + output + w + j);
      }
    }
  }
}

// y of kXs rows at outputs [begin, end).
template <Into kInto, int kXs>
HWY_INLINE void Outputs(const RowProduct& p, int64_t row, int64_t begin, int64_t end) {
  constexpr int kStep = kXs == 1 ? kWeightRowsOfOne : kWeightRows;
  int64_t output = begin;
  for (; output + kStep <= end; output += kStep) Block<kInto, kStep, kXs>(p, output, row);
  if constexpr (kXs == 1) {
    for (; output + 4 <= end; output += 4) Block<kInto, 4, kXs>(p, output, row);
  }
  for (; output < end; ++output) Block<kInto, 1, kXs>(p, output, row);
}

template <Into kInto>
HWY_INLINE void Product(const RowProduct& p) {
  if (p.rows == 1) return Outputs<kInto, 1>(p, 0, 0, p.outputs);
  // A few weight rows stay in the first-level cache while all x rows pass.
  for (int64_t output = 0; output < p.outputs; output += kWeightRows) {
    const int64_t end = std::min<int64_t>(p.outputs, output + kWeightRows);
    int64_t row = 0;
    for (; row + kRows <= p.rows; row += kRows) Outputs<kInto, kRows>(p, row, output, end);
    for (; row < p.rows; ++row) Outputs<kInto, 1>(p, row, output, end);
  }
}

void Multiply(const RowProduct& product) { Product<Into::kSet>(product); }
void AddProduct(const RowProduct& product) { Product<Into::kAdd>(product); }
void SubtractProduct(const RowProduct& product) { Product<Into::kSubtract>(product); }

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nestrec
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nestrec {

HWY_EXPORT(Multiply);
HWY_EXPORT(AddProduct);
HWY_EXPORT(SubtractProduct);

void MultiplyRows(const RowProduct& product) { HWY_DYNAMIC_DISPATCH(Multiply)(product); }
void AddProductRows(const RowProduct& product) { HWY_DYNAMIC_DISPATCH(AddProduct)(product); }
void SubtractProductRows(const RowProduct& product) {
  HWY_DYNAMIC_DISPATCH(SubtractProduct)(product);
}

}  // namespace nestrec
#endif
