#include "model/packed_rows.h"

#include <algorithm>

// Compiles this file once per instruction set; the best one is chosen at run time. Without SVE,
// whose vectors cannot be kept in arrays: NEON is there as well.
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "model/packed_rows.cc"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/highway.h>

#include "model/into.h"

HWY_BEFORE_NAMESPACE();
namespace nestrec {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::CappedTag<float, 16>;
using V = hn::Vec<Tag>;

// A block's sums stay in registers, one vector for each output and each kVectors rows' worth: 24 of
// them where there are 32 registers, 12 where there are 16.
constexpr int kVectors = 3;
#if HWY_TARGET == HWY_SSSE3 || HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_AVX2
constexpr int kOutputs = 4;
#else
constexpr int kOutputs = 8;
#endif

// Four outputs of `count` rows from sums [4][lanes] to y.
template <Into kInto>
HWY_INLINE void StoreFour(V s0, V s1, V s2, V s3, const PackedProduct& p, int64_t output,
                          int64_t row, int64_t count) {
  const Tag d;
  HWY_ALIGN float by_row[4 * hn::MaxLanes(d)];  // [lanes][4]
  hn::StoreInterleaved4(s0, s1, s2, s3, d, by_row);
  for (int64_t r = 0; r < count; ++r) {
    for (int j = 0; j < 4; ++j) {
      Store<kInto>(by_row[4 * r + j], p.bias, output + j,
                   p.y + (row + r) * p.y_stride + output + j);
    }
  }
}

// kWeights outputs of the rows in kXs vectors, from vector `first` of the panel on.
template <Into kInto, int kWeights, int kXs>
HWY_INLINE void Block(const PackedProduct& p, int64_t panel, int64_t first, int64_t output) {
  const Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const float* HWY_RESTRICT x = p.x->at(panel, 0) + first * lanes;
  const float* HWY_RESTRICT weight = p.weight + output * p.weight_stride;
  V sums[kWeights][kXs];
  for (int w = 0; w < kWeights; ++w) {
    for (int i = 0; i < kXs; ++i) sums[w][i] = hn::Zero(d);
  }
  for (int64_t c = 0; c < p.columns; ++c, x += PackedRows::kPanel) {
    V values[kXs];
    for (int i = 0; i < kXs; ++i) values[i] = hn::LoadU(d, x + i * lanes);
    for (int w = 0; w < kWeights; ++w) {
      const V factor = hn::Set(d, weight[w * p.weight_stride + c]);
      for (int i = 0; i < kXs; ++i) sums[w][i] = hn::MulAdd(factor, values[i], sums[w][i]);
    }
  }
  for (int i = 0; i < kXs; ++i) {
    const int64_t row = panel * PackedRows::kPanel + (first + i) * lanes;
    const int64_t count = std::min(lanes, p.x->rows() - row);
    if constexpr (kWeights >= 4) {
      for (int w = 0; w < kWeights; w += 4) {
        StoreFour<kInto>(sums[w][i], sums[w + 1][i], sums[w + 2][i], sums[w + 3][i], p, output + w,
                         row, count);
      }
    } else {
      HWY_ALIGN float of_rows[hn::MaxLanes(d)];
      hn::Store(sums[0][i], d, of_rows);
      for (int64_t r = 0; r < count; ++r) {
        Store<kInto>(of_rows[r], p.bias, output, p.y + (row + r) * p.y_stride + output);
      }
    }
  }
}

template <Into kInto, int kXs>
HWY_INLINE void Outputs(const PackedProduct& p, int64_t panel, int64_t first) {
  int64_t output = 0;
  for (; output + kOutputs <= p.outputs; output += kOutputs) {
    Block<kInto, kOutputs, kXs>(p, panel, first, output);
  }
  if constexpr (kOutputs > 4) {
    for (; output + 4 <= p.outputs; output += 4) Block<kInto, 4, kXs>(p, panel, first, output);
  }
  for (; output < p.outputs; ++output) Block<kInto, 1, kXs>(p, panel, first, output);
}

template <Into kInto>
HWY_INLINE void Product(const PackedProduct& p) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Tag()));
  for (int64_t begin = 0; begin < p.x->rows(); begin += PackedRows::kPanel) {
    const int64_t panel = begin / PackedRows::kPanel;
    const int64_t rows = std::min(PackedRows::kPanel, p.x->rows() - begin);
    const int64_t vectors = (rows + lanes - 1) / lanes;
    int64_t first = 0;
    for (; first + kVectors <= vectors; first += kVectors)
      Outputs<kInto, kVectors>(p, panel, first);
    if (vectors - first == 2) Outputs<kInto, 2>(p, panel, first);
    if (vectors - first == 1) Outputs<kInto, 1>(p, panel, first);
  }
}

void Multiply(const PackedProduct& product) { Product<Into::kSet>(product); }
void Add(const PackedProduct& product) { Product<Into::kAdd>(product); }
void Subtract(const PackedProduct& product) { Product<Into::kSubtract>(product); }

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nestrec
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nestrec {

HWY_EXPORT(Multiply);
HWY_EXPORT(Add);
HWY_EXPORT(Subtract);

void MultiplyPacked(const PackedProduct& product) { HWY_DYNAMIC_DISPATCH(Multiply)(product); }
void AddPacked(const PackedProduct& product) { HWY_DYNAMIC_DISPATCH(Add)(product); }
void SubtractPacked(const PackedProduct& product) { HWY_DYNAMIC_DISPATCH(Subtract)(product); }

void PackedRows::Extend(const float* x, int64_t stride, int64_t rows, int64_t columns) {
  // A cache line of every row at a time: rows often lie a power of two apart, where the first-level
  // cache holds few of them.
  constexpr int64_t kColumns = 16;
  rows_ = rows;
  for (int64_t begin = 0; begin < rows; begin += kPanel) {
    const int64_t count = std::min(kPanel, rows - begin);
    for (int64_t column = 0; column < columns; column += kColumns) {
      const int64_t some = std::min(kColumns, columns - column);
      float* out = values_ + (begin / kPanel * capacity_ + columns_ + column) * kPanel;
      for (int64_t r = 0; r < count; ++r) {
        const float* in = x + (begin + r) * stride + column;
        for (int64_t c = 0; c < some; ++c) out[c * kPanel + r] = in[c];
      }
      // What is beyond the last row is multiplied but not kept; it should be numbers.
      for (int64_t c = 0; c < some; ++c) {
        std::fill(out + c * kPanel + count, out + (c + 1) * kPanel, 0.0f);
      }
    }
  }
  columns_ += columns;
}

}  // namespace nestrec
#endif
