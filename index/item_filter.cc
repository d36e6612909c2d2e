#include "index/item_filter.h"

namespace nestrec {

ItemFilter::ItemFilter(int64_t items)
    : items_(items), allowed_(items), words_(static_cast<size_t>(items / 64 + 1), ~uint64_t{0}) {
  words_[0] &= ~uint64_t{1};
}

ItemFilter ItemFilter::Excluding(int64_t items, std::span<const int32_t> excluded) {
  ItemFilter filter(items);
  for (const int32_t item : excluded) {
    if (filter.Allows(item)) {
      filter.words_[item >> 6] &= ~(uint64_t{1} << (item & 63));
      --filter.allowed_;
    }
  }
  return filter;
}

}  // namespace nestrec
