// Which items a search may return: a bitmap over item numbers.
//
//   ItemFilter filter = ItemFilter::Excluding(items, {7, 9});
//   options.filter = &filter;
//
// Thread safety: immutable once made.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace nestrec {

class ItemFilter {
 public:
  // All items 1..items but the listed ones, which may repeat.
  // REQUIRES: every listed number is in 1..items.
  static ItemFilter Excluding(int64_t items, std::span<const int32_t> excluded);

  int64_t items() const { return items_; }
  // How many items are allowed.
  int64_t allowed() const { return allowed_; }
  // REQUIRES: 1 <= item <= items().
  bool Allows(int64_t item) const { return (words_[item >> 6] >> (item & 63)) & 1; }

 private:
  explicit ItemFilter(int64_t items);

  int64_t items_;
  int64_t allowed_;
  std::vector<uint64_t>
      words_;  // bit i of the whole: item i is allowed; bit 0 is padding, never set
};

}  // namespace nestrec
