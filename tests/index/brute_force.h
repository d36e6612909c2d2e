// What every exact search must return, by the definition of the canonical score. Written apart from
// the product's code, but for the score.
#pragma once

#include <algorithm>
#include <cstdint>
#include <ostream>
#include <span>
#include <vector>

#include "index/item_index.h"
#include "index/score.h"
#include "tests/index/test_vectors.h"

namespace nestrec {

// For GoogleTest's messages.
inline void PrintTo(const ScoredItem& item, std::ostream* out) {
  *out << item.item << ":" << item.score;
}

// All items, best first.
inline std::vector<ScoredItem> RankAll(const TestVectors& vectors, int levels,
                                       std::span<const float> query) {
  const LevelVectors view = vectors.view();
  std::vector<ScoredItem> all;
  for (int64_t item = 1; item < vectors.rows; ++item) {
    all.push_back({static_cast<int32_t>(item), CanonicalScore(query, view, levels, item)});
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return a.score > b.score; });
  return all;
}

// What a search may return of them.
inline std::vector<ScoredItem> Best(const std::vector<ScoredItem>& ranked,
                                    const SearchOptions& options) {
  std::vector<ScoredItem> best;
  for (const ScoredItem& item : ranked) {
    if (static_cast<int64_t>(best.size()) == options.k) break;
    if ((options.filter == nullptr || options.filter->Allows(item.item)) &&
        (!options.min_score.has_value() || item.score >= *options.min_score)) {
      best.push_back(item);
    }
  }
  return best;
}

inline std::vector<ScoredItem> BruteForce(const TestVectors& vectors, int levels,
                                          std::span<const float> query,
                                          const SearchOptions& options) {
  return Best(RankAll(vectors, levels, query), options);
}

}  // namespace nestrec
