#include "model/softmax_kernels.h"

#include <algorithm>

// Compiles this file once per instruction set; the best one is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "model/softmax_kernels.cc"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace nestrec {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// At most kSoftmaxColumns lanes, so that the padded columns are whole vectors.
template <typename T>
using Lanes = hn::CappedTag<T, static_cast<size_t>(kSoftmaxColumns)>;

// So many rows of a vector's columns are looked at twice, for their maximum and for their
// exponentials, before they leave the first-level cache.
constexpr int64_t kRowsAtOnce = 64;

template <typename T>
void UpdateLogSumExpOf(const T* HWY_RESTRICT logits, int64_t rows, int64_t columns, T scale,
                       T* HWY_RESTRICT copy, T* HWY_RESTRICT max, T* HWY_RESTRICT sum) {
  const Lanes<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto factor = hn::Set(d, scale);
  for (int64_t begin = 0; begin < rows; begin += kRowsAtOnce) {
    const int64_t end = std::min(rows, begin + kRowsAtOnce);
    for (int64_t c = 0; c < columns; c += lanes) {
      const auto old_max = hn::LoadU(d, max + c);
      auto new_max = old_max;
      for (int64_t r = begin; r < end; ++r) {
        const auto logit = hn::LoadU(d, logits + r * columns + c);
        if (copy != nullptr) hn::StoreU(logit, d, copy + r * columns + c);
        new_max = hn::Max(new_max, hn::Mul(factor, logit));
      }
      // The clamp keeps an empty description's -inf out of Exp.
      const auto shrink = hn::Max(hn::Sub(old_max, new_max), hn::Set(d, T{-1e4}));
      auto total = hn::Mul(hn::LoadU(d, sum + c), hn::Exp(d, shrink));
      for (int64_t r = begin; r < end; ++r) {
        const auto logit = hn::LoadU(d, logits + r * columns + c);
        total = hn::Add(total, hn::Exp(d, hn::MulSub(factor, logit, new_max)));
      }
      hn::StoreU(new_max, d, max + c);
      hn::StoreU(total, d, sum + c);
    }
  }
}

template <typename T>
void AddSoftmaxOf(const T* logits, int64_t rows, int64_t columns, T scale,
                  const T* HWY_RESTRICT log_sum, T weight, bool overwrite, T* out) {
  const Lanes<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto factor = hn::Set(d, scale);
  const auto share = hn::Set(d, weight);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; c += lanes) {
      const int64_t at = r * columns + c;
      const auto p =
          hn::Exp(d, hn::MulSub(factor, hn::LoadU(d, logits + at), hn::LoadU(d, log_sum + c)));
      const auto before = overwrite ? hn::Zero(d) : hn::LoadU(d, out + at);
      hn::StoreU(hn::MulAdd(share, p, before), d, out + at);
    }
  }
}

void UpdateLogSumExpFloat(const float* logits, int64_t rows, int64_t columns, float scale,
                          float* copy, float* max, float* sum) {
  UpdateLogSumExpOf(logits, rows, columns, scale, copy, max, sum);
}
void UpdateLogSumExpDouble(const double* logits, int64_t rows, int64_t columns, double scale,
                           double* copy, double* max, double* sum) {
  UpdateLogSumExpOf(logits, rows, columns, scale, copy, max, sum);
}
void AddSoftmaxFloat(const float* logits, int64_t rows, int64_t columns, float scale,
                     const float* log_sum, float weight, bool overwrite, float* out) {
  AddSoftmaxOf(logits, rows, columns, scale, log_sum, weight, overwrite, out);
}
void AddSoftmaxDouble(const double* logits, int64_t rows, int64_t columns, double scale,
                      const double* log_sum, double weight, bool overwrite, double* out) {
  AddSoftmaxOf(logits, rows, columns, scale, log_sum, weight, overwrite, out);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nestrec
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nestrec {

HWY_EXPORT(UpdateLogSumExpFloat);
HWY_EXPORT(UpdateLogSumExpDouble);
HWY_EXPORT(AddSoftmaxFloat);
HWY_EXPORT(AddSoftmaxDouble);

void UpdateLogSumExp(const float* logits, int64_t rows, int64_t columns, float scale, float* copy,
                     float* max, float* sum) {
  HWY_DYNAMIC_DISPATCH(UpdateLogSumExpFloat)(logits, rows, columns, scale, copy, max, sum);
}
void UpdateLogSumExp(const double* logits, int64_t rows, int64_t columns, double scale,
                     double* copy, double* max, double* sum) {
  HWY_DYNAMIC_DISPATCH(UpdateLogSumExpDouble)(logits, rows, columns, scale, copy, max, sum);
}
void AddSoftmax(const float* logits, int64_t rows, int64_t columns, float scale,
                const float* log_sum, float weight, bool overwrite, float* out) {
  HWY_DYNAMIC_DISPATCH(AddSoftmaxFloat)
  (logits, rows, columns, scale, log_sum, weight, overwrite, out);
}
void AddSoftmax(const double* logits, int64_t rows, int64_t columns, double scale,
                const double* log_sum, double weight, bool overwrite, double* out) {
  HWY_DYNAMIC_DISPATCH(AddSoftmaxDouble)
  (logits, rows, columns, scale, log_sum, weight, overwrite, out);
}

}  // namespace nestrec
#endif  // HWY_ONCE
