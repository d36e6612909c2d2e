#include "index/item_set.h"

#include <roaring/roaring.h>

#include <new>
#include <utility>

namespace nestrec {
namespace {

const roaring_bitmap_t* Bitmap(const std::shared_ptr<const void>& bitmap) {
  return static_cast<const roaring_bitmap_t*>(bitmap.get());
}

// Takes what a CRoaring function made; null is how it says that memory ran out.
std::shared_ptr<const void> Own(roaring_bitmap_t* bitmap) {
  if (bitmap == nullptr) {
    throw std::bad_alloc();
  }
  return std::shared_ptr<const void>(bitmap, [](const void* made) {
    roaring_bitmap_free(static_cast<roaring_bitmap_t*>(const_cast<void*>(made)));
  });
}

}  // namespace

ItemSet::ItemSet() : bitmap_(Own(roaring_bitmap_create())) {}

ItemSet ItemSet::Of(std::span<const int32_t> items) {
  static_assert(sizeof(int32_t) == sizeof(uint32_t));
  roaring_bitmap_t* bitmap = roaring_bitmap_of_ptr(
      items.size(), reinterpret_cast<const uint32_t*>(items.data()));  // signed or not: aliases
  if (bitmap != nullptr) {
    roaring_bitmap_run_optimize(bitmap);
    roaring_bitmap_shrink_to_fit(bitmap);
  }
  return ItemSet(Own(bitmap));
}

ItemSet ItemSet::Range(int64_t begin, int64_t end) {
  if (begin == end) {
    return ItemSet();
  }
  return ItemSet(
      Own(roaring_bitmap_from_range(static_cast<uint64_t>(begin), static_cast<uint64_t>(end), 1)));
}

ItemSet ItemSet::Union(std::span<const ItemSet> sets) {
  std::vector<const roaring_bitmap_t*> bitmaps;
  bitmaps.reserve(sets.size());
  for (const ItemSet& set : sets) {
    bitmaps.push_back(Bitmap(set.bitmap_));
  }
  // An older declaration lacks the inner const.
  return ItemSet(Own(roaring_bitmap_or_many(bitmaps.size(),
                                            const_cast<const roaring_bitmap_t**>(bitmaps.data()))));
}

ItemSet ItemSet::And(const ItemSet& other) const {
  return ItemSet(Own(roaring_bitmap_and(Bitmap(bitmap_), Bitmap(other.bitmap_))));
}

ItemSet ItemSet::Or(const ItemSet& other) const {
  return ItemSet(Own(roaring_bitmap_or(Bitmap(bitmap_), Bitmap(other.bitmap_))));
}

ItemSet ItemSet::Without(const ItemSet& other) const {
  return ItemSet(Own(roaring_bitmap_andnot(Bitmap(bitmap_), Bitmap(other.bitmap_))));
}

int64_t ItemSet::size() const {
  return static_cast<int64_t>(roaring_bitmap_get_cardinality(Bitmap(bitmap_)));
}

bool ItemSet::Contains(int32_t item) const {
  return item >= 0 && roaring_bitmap_contains(Bitmap(bitmap_), static_cast<uint32_t>(item));
}

std::vector<int32_t> ItemSet::Items() const {
  std::vector<int32_t> items(static_cast<size_t>(size()));
  roaring_bitmap_to_uint32_array(Bitmap(bitmap_), reinterpret_cast<uint32_t*>(items.data()));
  return items;
}

int64_t ItemSet::bytes() const {
  return static_cast<int64_t>(roaring_bitmap_size_in_bytes(Bitmap(bitmap_)));
}

bool operator==(const ItemSet& a, const ItemSet& b) {
  return roaring_bitmap_equals(Bitmap(a.bitmap_), Bitmap(b.bitmap_));
}

}  // namespace nestrec
