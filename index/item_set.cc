#include "index/item_set.h"

#include <roaring/roaring.h>

#include <cstring>
#include <new>
#include <utility>

#include "absl/base/macros.h"

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

// CRoaring's releases differ in how a set's parts can be reached, but not in how it is written
// (https://github.com/RoaringBitmap/RoaringFormatSpec): parts of 2^16 numbers, of which the dense
// ones are plain bits.
void ItemSet::SetBits(std::span<uint64_t> words) const {
  constexpr uint32_t kCookie = 12347;  // some parts are runs
  constexpr uint32_t kCookieWithoutRuns = 12346;
  constexpr uint32_t kOffsetsFrom = 4;  // fewer parts have no table of offsets, if some are runs
  constexpr size_t kMostListed = 4096;  // of a part's numbers; more are bits
  constexpr size_t kPartWords = (1 << 16) / 64;
  const roaring_bitmap_t* bitmap = Bitmap(bitmap_);
  std::vector<char> bytes(roaring_bitmap_portable_size_in_bytes(bitmap));
  roaring_bitmap_portable_serialize(bitmap, bytes.data());
  const char* next = bytes.data();
  const auto read = [&next]<typename T>(T value) {
    std::memcpy(&value, next, sizeof(value));
    next += sizeof(value);
    return value;
  };
  const auto set_bit = [words](size_t item) {
    if (item / 64 < words.size()) {
      words[item / 64] |= uint64_t{1} << (item % 64);
    }
  };

  const auto cookie = read(uint32_t{});
  const bool has_runs = (cookie & 0xffff) == kCookie;
  ABSL_ASSERT(has_runs || cookie == kCookieWithoutRuns);
  const uint32_t parts = has_runs ? (cookie >> 16) + 1 : read(uint32_t{});
  const char* run_flags = next;
  next += has_runs ? (parts + 7) / 8 : 0;
  const char* keys = next;  // per part: which 2^16 numbers, and how many of them - 1
  next += parts * 2 * sizeof(uint16_t);
  next += !has_runs || parts >= kOffsetsFrom ? parts * sizeof(uint32_t) : 0;
  for (uint32_t part = 0; part < parts; ++part) {
    uint16_t key_and_count[2];
    std::memcpy(key_and_count, keys + part * sizeof(key_and_count), sizeof(key_and_count));
    const size_t first = size_t{key_and_count[0]} << 16;
    const size_t count = size_t{key_and_count[1]} + 1;
    if (has_runs && ((run_flags[part / 8] >> (part % 8)) & 1) != 0) {
      for (auto runs = read(uint16_t{}); runs > 0; --runs) {
        const auto begin = first + read(uint16_t{});
        const size_t end = begin + read(uint16_t{}) + 1;
        for (size_t item = begin; item < end;) {
          if (item % 64 == 0 && item + 64 <= end) {
            if (item / 64 < words.size()) {
              words[item / 64] = ~uint64_t{0};
            }
            item += 64;
          } else {
            set_bit(item++);
          }
        }
      }
    } else if (count <= kMostListed) {
      for (size_t i = 0; i < count; ++i) {
        set_bit(first + read(uint16_t{}));
      }
    } else {
      for (size_t word = first / 64; word < first / 64 + kPartWords; ++word) {
        const auto bits = read(uint64_t{});
        if (word < words.size()) {
          words[word] |= bits;
        }
      }
    }
  }
}

int64_t ItemSet::bytes() const {
  return static_cast<int64_t>(roaring_bitmap_size_in_bytes(Bitmap(bitmap_)));
}

bool operator==(const ItemSet& a, const ItemSet& b) {
  return roaring_bitmap_equals(Bitmap(a.bitmap_), Bitmap(b.bitmap_));
}

}  // namespace nestrec
