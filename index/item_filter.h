// Which items a search may return.
//
//   ItemFilter filter = ItemFilter::Excluding(items, {7, 9}).And(ItemFilter::Allowing(items, set));
//   options.filter = &filter;
//
// What is inside depends on how many are allowed: a bit for every item, so that Allows costs one
// load in a scan, or, where few are (at most one of kFewShare), their ascending numbers, which an
// index scores one by one instead of scanning (few()).
//
// Thread safety: immutable once made.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "index/item_set.h"

namespace nestrec {

class ItemFilter {
 public:
  static constexpr int64_t kFewShare = 64;

  // All items 1..items but the listed ones, which may repeat.
  // REQUIRES: every listed number is in 1..items.
  static ItemFilter Excluding(int64_t items, std::span<const int32_t> excluded);
  // Of items 1..items the listed ones, which may repeat, in any order. REQUIRES: as above.
  static ItemFilter Allowing(int64_t items, std::span<const int32_t> allowed);
  // Of items 1..items those in the set; its numbers outside are left out.
  static ItemFilter Allowing(int64_t items, const ItemSet& allowed);

  // Allowed by both, by one at least, not allowed. REQUIRES: as many items in both.
  ItemFilter And(const ItemFilter& other) const;
  ItemFilter Or(const ItemFilter& other) const;
  ItemFilter Not() const;
  // The same items allowed among `items` of them: a wider range allows none of the new ones.
  ItemFilter Resized(int64_t items) const;

  int64_t items() const { return items_; }
  // How many items are allowed.
  int64_t allowed() const { return allowed_; }
  // REQUIRES: 1 <= item <= items().
  bool Allows(int64_t item) const {
    return words_.empty() ? FewAllow(item) : ((words_[item >> 6] >> (item & 63)) & 1) != 0;
  }
  // The allowed items, ascending, where they are few; nothing where they are many.
  std::optional<std::span<const int32_t>> few() const {
    return words_.empty() ? std::optional(std::span<const int32_t>(few_)) : std::nullopt;
  }
  // Calls use(item) for every allowed item, ascending.
  template <typename Use>
  void ForEachAllowed(Use&& use) const {
    for (const int32_t item : few_) {
      use(static_cast<int64_t>(item));
    }
    for (size_t word = 0; word < words_.size(); ++word) {
      for (uint64_t left = words_[word]; left != 0; left &= left - 1) {
        use(static_cast<int64_t>(word) * 64 + std::countr_zero(left));
      }
    }
  }
  // Calls use(item) for every item of [begin, end) that is not allowed, ascending; where nearly all
  // are, that is much less than asking for each. REQUIRES: 1 <= begin <= end <= items() + 1.
  template <typename Use>
  void ForEachForbidden(int64_t begin, int64_t end, Use&& use) const {
    if (words_.empty()) {
      for (int64_t item = begin; item < end; ++item) {
        if (!FewAllow(item)) use(item);
      }
      return;
    }
    for (int64_t word = begin >> 6; word * 64 < end; ++word) {
      uint64_t left = ~words_[static_cast<size_t>(word)];
      if (begin > word * 64) left &= ~uint64_t{0} << (begin & 63);
      if (end < (word + 1) * 64) left &= ~(~uint64_t{0} << (end & 63));
      for (; left != 0; left &= left - 1) use(word * 64 + std::countr_zero(left));
    }
  }
  int64_t bytes() const {
    return static_cast<int64_t>(words_.capacity() * sizeof(uint64_t) +
                                few_.capacity() * sizeof(int32_t));
  }

 private:
  using Words = std::vector<uint64_t>;
  // Bit i of the whole: item i is allowed; bits 0 and above `items` are not set. Counts them, and
  // keeps whichever form suits.
  ItemFilter(int64_t items, Words words);
  ItemFilter(int64_t items, std::vector<int32_t> few);
  bool FewAllow(int64_t item) const;
  // A bit each, whatever the form.
  Words AllWords() const;

  int64_t items_;
  int64_t allowed_;
  Words words_;               // empty where few_ says it
  std::vector<int32_t> few_;  // ascending; empty where words_ says it
};

}  // namespace nestrec
