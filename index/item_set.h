// A set of item numbers as a compressed bitmap (CRoaring): what attribute predicates are made of.
//
//   ItemSet blue = ItemSet::Of({3, 17});
//   ItemSet rest = ItemSet::Range(1, items + 1).Without(blue);
//
// Copies share their memory. Every operation makes a new set; sizes are in items, bytes as
// allocated. A set of all of N items takes a few bytes, a random half N / 8.
//
// Thread safety: immutable. Throws std::bad_alloc when memory runs out, as containers do.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace nestrec {

class ItemSet {
 public:
  ItemSet();  // empty

  // Numbers in any order, which may repeat; ascending ones are added faster. REQUIRES: none is
  // negative.
  static ItemSet Of(std::span<const int32_t> items);
  // begin, begin + 1, ..., end - 1. REQUIRES: 0 <= begin <= end <= 2^31.
  static ItemSet Range(int64_t begin, int64_t end);
  static ItemSet Union(std::span<const ItemSet> sets);

  ItemSet And(const ItemSet& other) const;
  ItemSet Or(const ItemSet& other) const;
  ItemSet Without(const ItemSet& other) const;

  int64_t size() const;
  bool Contains(int32_t item) const;
  std::vector<int32_t> Items() const;  // ascending
  // Sets bit i of the whole (bit i % 64 of word i / 64) for every item i of the set that has one.
  // Costs a copy of the set's bytes, not a step for every item.
  void SetBits(std::span<uint64_t> words) const;
  int64_t bytes() const;

  friend bool operator==(const ItemSet& a, const ItemSet& b);

 private:
  explicit ItemSet(std::shared_ptr<const void> bitmap) : bitmap_(std::move(bitmap)) {}

  std::shared_ptr<const void> bitmap_;  // a roaring_bitmap_t; its header stays in the .cc
};

}  // namespace nestrec
