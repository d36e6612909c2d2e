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
void UpdateLogSumExpOf(const LogitBlock<T>& block, T* HWY_RESTRICT copy, T* HWY_RESTRICT max,
                       T* HWY_RESTRICT sum) {
  const Lanes<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto scale = hn::Set(d, block.scale);
  const T* HWY_RESTRICT values = block.values;
  const auto offset = [&](int64_t r) {
    return block.offset == nullptr ? hn::Zero(d) : hn::Set(d, block.offset[r]);
  };
  for (int64_t begin = 0; begin < block.rows; begin += kRowsAtOnce) {
    const int64_t end = std::min(block.rows, begin + kRowsAtOnce);
    for (int64_t c = 0; c < block.columns; c += lanes) {
      const auto old_max = hn::LoadU(d, max + c);
      auto new_max = old_max;
      for (int64_t r = begin; r < end; ++r) {
        const auto value = hn::LoadU(d, values + r * block.columns + c);
        if (copy != nullptr) hn::StoreU(value, d, copy + r * block.columns + c);
        new_max = hn::Max(new_max, hn::MulAdd(scale, value, offset(r)));
      }
      // The clamp keeps an empty description's -inf out of Exp.
      const auto shrink = hn::Max(hn::Sub(old_max, new_max), hn::Set(d, T{-1e4}));
      auto total = hn::Mul(hn::LoadU(d, sum + c), hn::Exp(d, shrink));
      for (int64_t r = begin; r < end; ++r) {
        const auto value = hn::LoadU(d, values + r * block.columns + c);
        const auto logit = hn::MulAdd(scale, value, offset(r));
        total = hn::Add(total, hn::Exp(d, hn::Sub(logit, new_max)));
      }
      hn::StoreU(new_max, d, max + c);
      hn::StoreU(total, d, sum + c);
    }
  }
}

template <typename T>
void AddSoftmaxOf(const LogitBlock<T>& block, const T* HWY_RESTRICT log_sum, T weight,
                  bool overwrite, T* out) {
  const Lanes<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto scale = hn::Set(d, block.scale);
  const auto share = hn::Set(d, weight);
  for (int64_t r = 0; r < block.rows; ++r) {
    const auto offset = block.offset == nullptr ? hn::Zero(d) : hn::Set(d, block.offset[r]);
    for (int64_t c = 0; c < block.columns; c += lanes) {
      const int64_t at = r * block.columns + c;
      const auto logit = hn::MulAdd(scale, hn::LoadU(d, block.values + at), offset);
      const auto p = hn::Exp(d, hn::Sub(logit, hn::LoadU(d, log_sum + c)));
      const auto before = overwrite ? hn::Zero(d) : hn::LoadU(d, out + at);
      hn::StoreU(hn::MulAdd(share, p, before), d, out + at);
    }
  }
}

template <typename T>
void SubtractTeacherOf(const LogitBlock<T>& block, const T* HWY_RESTRICT teacher, T weight,
                       T* HWY_RESTRICT out, T* HWY_RESTRICT dot) {
  const Lanes<T> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto scale = hn::Set(d, block.scale);
  const auto share = hn::Set(d, weight);
  for (int64_t r = 0; r < block.rows; ++r) {
    const auto offset = block.offset == nullptr ? hn::Zero(d) : hn::Set(d, block.offset[r]);
    for (int64_t c = 0; c < block.columns; c += lanes) {
      const int64_t at = r * block.columns + c;
      const auto p = hn::LoadU(d, teacher + at);
      const auto logit = hn::MulAdd(scale, hn::LoadU(d, block.values + at), offset);
      hn::StoreU(hn::NegMulAdd(share, p, hn::LoadU(d, out + at)), d, out + at);
      hn::StoreU(hn::MulAdd(p, logit, hn::LoadU(d, dot + c)), d, dot + c);
    }
  }
}

void UpdateLogSumExpFloat(const LogitBlock<float>& logits, float* copy, float* max, float* sum) {
  UpdateLogSumExpOf(logits, copy, max, sum);
}
void UpdateLogSumExpDouble(const LogitBlock<double>& logits, double* copy, double* max,
                           double* sum) {
  UpdateLogSumExpOf(logits, copy, max, sum);
}
void AddSoftmaxFloat(const LogitBlock<float>& logits, const float* log_sum, float weight,
                     bool overwrite, float* out) {
  AddSoftmaxOf(logits, log_sum, weight, overwrite, out);
}
void AddSoftmaxDouble(const LogitBlock<double>& logits, const double* log_sum, double weight,
                      bool overwrite, double* out) {
  AddSoftmaxOf(logits, log_sum, weight, overwrite, out);
}
void SubtractTeacherFloat(const LogitBlock<float>& logits, const float* teacher, float weight,
                          float* out, float* dot) {
  SubtractTeacherOf(logits, teacher, weight, out, dot);
}
void SubtractTeacherDouble(const LogitBlock<double>& logits, const double* teacher, double weight,
                           double* out, double* dot) {
  SubtractTeacherOf(logits, teacher, weight, out, dot);
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
HWY_EXPORT(SubtractTeacherFloat);
HWY_EXPORT(SubtractTeacherDouble);

void UpdateLogSumExp(const LogitBlock<float>& logits, float* copy, float* max, float* sum) {
  HWY_DYNAMIC_DISPATCH(UpdateLogSumExpFloat)(logits, copy, max, sum);
}
void UpdateLogSumExp(const LogitBlock<double>& logits, double* copy, double* max, double* sum) {
  HWY_DYNAMIC_DISPATCH(UpdateLogSumExpDouble)(logits, copy, max, sum);
}
void AddSoftmax(const LogitBlock<float>& logits, const float* log_sum, float weight, bool overwrite,
                float* out) {
  HWY_DYNAMIC_DISPATCH(AddSoftmaxFloat)(logits, log_sum, weight, overwrite, out);
}
void AddSoftmax(const LogitBlock<double>& logits, const double* log_sum, double weight,
                bool overwrite, double* out) {
  HWY_DYNAMIC_DISPATCH(AddSoftmaxDouble)(logits, log_sum, weight, overwrite, out);
}
void SubtractTeacher(const LogitBlock<float>& logits, const float* teacher, float weight,
                     float* out, float* dot) {
  HWY_DYNAMIC_DISPATCH(SubtractTeacherFloat)(logits, teacher, weight, out, dot);
}
void SubtractTeacher(const LogitBlock<double>& logits, const double* teacher, double weight,
                     double* out, double* dot) {
  HWY_DYNAMIC_DISPATCH(SubtractTeacherDouble)(logits, teacher, weight, out, dot);
}

}  // namespace nestrec
#endif  // HWY_ONCE
