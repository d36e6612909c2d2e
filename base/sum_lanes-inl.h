// The sums of four vectors' lanes at once, for files that are compiled once per instruction set
// (include it after <hwy/highway.h>).
//
// Thread safety: pure functions.

// Highway's guard: once per instruction set, and not once.
#if defined(NESTREC_BASE_SUM_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NESTREC_BASE_SUM_LANES_INL_H_
#undef NESTREC_BASE_SUM_LANES_INL_H_
#else
#define NESTREC_BASE_SUM_LANES_INL_H_
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace nestrec {
namespace HWY_NAMESPACE {

// sums[i] = the sum of v<i>'s lanes, in an order that depends on their number alone.
template <class D>
HWY_INLINE void SumLanes(D d, hwy::HWY_NAMESPACE::Vec<D> v0, hwy::HWY_NAMESPACE::Vec<D> v1,
                         hwy::HWY_NAMESPACE::Vec<D> v2, hwy::HWY_NAMESPACE::Vec<D> v3,
                         float* HWY_RESTRICT sums) {
  namespace hn = hwy::HWY_NAMESPACE;
#if HWY_HAVE_SCALABLE || HWY_TARGET == HWY_SCALAR
  sums[0] = hn::GetLane(hn::SumOfLanes(d, v0));
  sums[1] = hn::GetLane(hn::SumOfLanes(d, v1));
  sums[2] = hn::GetLane(hn::SumOfLanes(d, v2));
  sums[3] = hn::GetLane(hn::SumOfLanes(d, v3));
#else
  if constexpr (hn::MaxLanes(d) > 4) {
    const hn::Half<D> half;
    const auto fold = [&](hn::Vec<D> v) {
      return hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v));
    };
    SumLanes(half, fold(v0), fold(v1), fold(v2), fold(v3), sums);
  } else {
    const auto v01 = hn::Add(hn::ConcatEven(d, v1, v0), hn::ConcatOdd(d, v1, v0));
    const auto v23 = hn::Add(hn::ConcatEven(d, v3, v2), hn::ConcatOdd(d, v3, v2));
    hn::StoreU(hn::Add(hn::ConcatEven(d, v23, v01), hn::ConcatOdd(d, v23, v01)), d, sums);
  }
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace nestrec
HWY_AFTER_NAMESPACE();

#endif  // NESTREC_BASE_SUM_LANES_INL_H_
