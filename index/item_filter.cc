#include "index/item_filter.h"

#include <algorithm>
#include <utility>

namespace nestrec {
namespace {

size_t WordCount(int64_t items) { return static_cast<size_t>(items / 64 + 1); }

void SetBit(std::vector<uint64_t>& words, int64_t item) {
  words[static_cast<size_t>(item >> 6)] |= uint64_t{1} << (item & 63);
}

// A bit for each of 1..items.
std::vector<uint64_t> AllSet(int64_t items) {
  std::vector<uint64_t> words(WordCount(items), ~uint64_t{0});
  words.front() &= ~uint64_t{1};
  words.back() &= ~uint64_t{0} >> (63 - (items & 63));
  return words;
}

bool AreFew(int64_t allowed, int64_t items) { return allowed <= items / ItemFilter::kFewShare; }

}  // namespace

ItemFilter::ItemFilter(int64_t items, Words words)
    : items_(items), allowed_(0), words_(std::move(words)) {
  for (const uint64_t word : words_) {
    allowed_ += std::popcount(word);
  }
  if (AreFew(allowed_, items_)) {
    std::vector<int32_t> few;
    few.reserve(static_cast<size_t>(allowed_));
    ForEachAllowed([&](int64_t item) { few.push_back(static_cast<int32_t>(item)); });
    few_ = std::move(few);
    words_ = Words();
  }
}

ItemFilter::ItemFilter(int64_t items, std::vector<int32_t> few)
    : items_(items), allowed_(static_cast<int64_t>(few.size())), few_(std::move(few)) {}

ItemFilter ItemFilter::Excluding(int64_t items, std::span<const int32_t> excluded) {
  Words words = AllSet(items);
  for (const int32_t item : excluded) {
    words[static_cast<size_t>(item >> 6)] &= ~(uint64_t{1} << (item & 63));
  }
  return ItemFilter(items, std::move(words));
}

ItemFilter ItemFilter::Allowing(int64_t items, std::span<const int32_t> allowed) {
  if (AreFew(static_cast<int64_t>(allowed.size()), items)) {
    std::vector<int32_t> few(allowed.begin(), allowed.end());
    std::sort(few.begin(), few.end());
    few.erase(std::unique(few.begin(), few.end()), few.end());
    return ItemFilter(items, std::move(few));
  }
  Words words(WordCount(items), 0);
  for (const int32_t item : allowed) {
    SetBit(words, item);
  }
  return ItemFilter(items, std::move(words));
}

ItemFilter ItemFilter::Allowing(int64_t items, const ItemSet& allowed) {
  if (AreFew(allowed.size(), items)) {
    std::vector<int32_t> few = allowed.Items();
    few.erase(std::upper_bound(few.begin(), few.end(), items), few.end());
    few.erase(few.begin(), std::lower_bound(few.begin(), few.end(), 1));
    return ItemFilter(items, std::move(few));
  }
  Words words(WordCount(items), 0);
  allowed.SetBits(words);
  const Words all = AllSet(items);
  words.front() &= all.front();
  words.back() &= all.back();
  return ItemFilter(items, std::move(words));
}

ItemFilter ItemFilter::And(const ItemFilter& other) const {
  if (!words_.empty() && !other.words_.empty()) {
    Words words = words_;
    for (size_t i = 0; i < words.size(); ++i) {
      words[i] &= other.words_[i];
    }
    return ItemFilter(items_, std::move(words));
  }
  const ItemFilter& small = words_.empty() ? *this : other;
  const ItemFilter& large = words_.empty() ? other : *this;
  std::vector<int32_t> few;
  std::copy_if(small.few_.begin(), small.few_.end(), std::back_inserter(few),
               [&](int32_t item) { return large.Allows(item); });
  return ItemFilter(items_, std::move(few));
}

ItemFilter ItemFilter::Or(const ItemFilter& other) const {
  Words words = AllWords();
  other.ForEachAllowed([&](int64_t item) { SetBit(words, item); });
  return ItemFilter(items_, std::move(words));
}

ItemFilter ItemFilter::Not() const {
  Words words = AllSet(items_);
  const Words allowed = AllWords();
  for (size_t i = 0; i < words.size(); ++i) {
    words[i] &= ~allowed[i];
  }
  return ItemFilter(items_, std::move(words));
}

ItemFilter ItemFilter::Resized(int64_t items) const {
  Words words = AllWords();
  words.resize(WordCount(items), 0);
  if (items < items_) {
    words.back() &= ~uint64_t{0} >> (63 - (items & 63));
  }
  return ItemFilter(items, std::move(words));
}

bool ItemFilter::FewAllow(int64_t item) const {
  return std::binary_search(few_.begin(), few_.end(), static_cast<int32_t>(item));
}

ItemFilter::Words ItemFilter::AllWords() const {
  if (!words_.empty()) {
    return words_;
  }
  Words words(WordCount(items_), 0);
  for (const int32_t item : few_) {
    SetBit(words, item);
  }
  return words;
}

}  // namespace nestrec
