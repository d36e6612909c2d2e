// Floats and halves alike as lanes of floats, for files that are compiled once per instruction set
// (include it after <hwy/highway.h>).
//
// Thread safety: pure functions.

// Highway's guard: once per instruction set, and not once.
#if defined(NESTREC_INDEX_HALF_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef NESTREC_INDEX_HALF_LANES_INL_H_
#undef NESTREC_INDEX_HALF_LANES_INL_H_
#else
#define NESTREC_INDEX_HALF_LANES_INL_H_
#endif

#include <hwy/highway.h>

#include "index/half.h"

HWY_BEFORE_NAMESPACE();
namespace nestrec {
namespace HWY_NAMESPACE {

HWY_INLINE float FloatOf(float value) { return value; }
HWY_INLINE float FloatOf(nestrec::Half value) { return FloatOfHalf(value); }

// Lanes(d) of them from `from` on, which need not be aligned. REQUIRES: halves are finite.
template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> LoadFloats(D d, const float* HWY_RESTRICT from) {
  return hwy::HWY_NAMESPACE::LoadU(d, from);
}
template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> LoadFloats(D d, const nestrec::Half* HWY_RESTRICT from) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Rebind<uint16_t, D> bits;
  const hn::Rebind<hwy::float16_t, D> halves;
  return hn::PromoteTo(d, hn::BitCast(halves, hn::LoadU(bits, from)));
}

}  // namespace HWY_NAMESPACE
}  // namespace nestrec
HWY_AFTER_NAMESPACE();

#endif  // NESTREC_INDEX_HALF_LANES_INL_H_
