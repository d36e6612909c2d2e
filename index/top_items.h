// The best k items of those that were offered, by the order of results (RanksBefore).
//
//   TopItems best(10, min_score);
//   best.Offer(item, score);   // score >= best.threshold() is worth offering
//   best.Take();               // best first
//
// Not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "index/item_index.h"

namespace nestrec {

class TopItems {
 public:
  // REQUIRES: k >= 1.
  TopItems(int64_t k, std::optional<float> min_score)
      : k_(k), least_(min_score.value_or(-std::numeric_limits<float>::infinity())) {}

  void Offer(int32_t item, float score) {
    if (score < least_) return;
    const ScoredItem offered = {item, score};
    if (static_cast<int64_t>(heap_.size()) < k_) {
      heap_.push_back(offered);
      std::push_heap(heap_.begin(), heap_.end(), RanksBefore);
    } else if (RanksBefore(offered, heap_.front())) {
      std::pop_heap(heap_.begin(), heap_.end(), RanksBefore);
      heap_.back() = offered;
      std::push_heap(heap_.begin(), heap_.end(), RanksBefore);
    } else {
      return;
    }
    if (static_cast<int64_t>(heap_.size()) == k_) least_ = std::max(least_, heap_.front().score);
  }
  void OfferAll(const TopItems& other) {
    for (const ScoredItem& item : other.heap_) Offer(item.item, item.score);
  }
  // No item with a lower score can enter: minus infinity while there is room.
  float threshold() const { return least_; }
  std::vector<ScoredItem> Take() {
    std::sort_heap(heap_.begin(), heap_.end(), RanksBefore);
    return std::move(heap_);
  }

 private:
  int64_t k_;
  float least_;
  std::vector<ScoredItem> heap_;  // the worst in front
};

}  // namespace nestrec
