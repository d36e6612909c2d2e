#include "model/adamw.h"

#include <omp.h>

// Compiles this file once per instruction set; the best one is chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "model/adamw.cc"
#include <hwy/foreach_target.h>
// foreach_target.h comes first.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace nestrec {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// The update of elements [begin, end). REQUIRES: end - begin is a multiple of the tag's lanes.
template <class D>
void UpdateRange(D d, const AdamWFactors& factors, int64_t begin, int64_t end,
                 const float* HWY_RESTRICT gradient, float* HWY_RESTRICT m, float* HWY_RESTRICT v,
                 float* HWY_RESTRICT weight) {
  const auto scale = hn::Set(d, factors.gradient_scale);
  const auto beta1 = hn::Set(d, factors.beta1);
  const auto beta2 = hn::Set(d, factors.beta2);
  const auto rest1 = hn::Set(d, 1.0f - factors.beta1);
  const auto rest2 = hn::Set(d, 1.0f - factors.beta2);
  const auto decay = hn::Set(d, factors.decay);
  const auto step_size = hn::Set(d, factors.step_size);
  const auto root_bias = hn::Set(d, 1.0f / factors.root_bias);
  const auto epsilon = hn::Set(d, factors.epsilon);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = begin; i < end; i += lanes) {
    const auto g = hn::Mul(scale, hn::LoadU(d, gradient + i));
    const auto new_m = hn::MulAdd(beta1, hn::LoadU(d, m + i), hn::Mul(rest1, g));
    const auto new_v = hn::MulAdd(beta2, hn::LoadU(d, v + i), hn::Mul(rest2, hn::Mul(g, g)));
    const auto root = hn::MulAdd(hn::Sqrt(new_v), root_bias, epsilon);
    const auto step = hn::Div(hn::Mul(step_size, new_m), root);
    hn::StoreU(new_m, d, m + i);
    hn::StoreU(new_v, d, v + i);
    hn::StoreU(hn::Sub(hn::Mul(decay, hn::LoadU(d, weight + i)), step), d, weight + i);
  }
}

void Update(const AdamWFactors& factors, int64_t begin, int64_t end, const float* gradient,
            float* m, float* v, float* weight) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t whole = begin + (end - begin) / lanes * lanes;
  UpdateRange(d, factors, begin, whole, gradient, m, v, weight);
  UpdateRange(hn::CappedTag<float, 1>(), factors, whole, end, gradient, m, v, weight);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace nestrec
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nestrec {

HWY_EXPORT(Update);

void AdamWUpdate(const AdamWFactors& factors, int64_t count, const float* gradient, float* m,
                 float* v, float* weight) {
  constexpr int64_t kWorthThreads = 1 << 15;
#pragma omp parallel if (count >= kWorthThreads)
  {
    const int64_t thread = omp_get_thread_num();
    const int64_t threads = omp_get_num_threads();
    const int64_t begin = count * thread / threads;
    const int64_t end = count * (thread + 1) / threads;
    HWY_DYNAMIC_DISPATCH(Update)(factors, begin, end, gradient, m, v, weight);
  }
}

}  // namespace nestrec
#endif  // HWY_ONCE
