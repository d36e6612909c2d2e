// Brute force with the canonical score: what every exact index must agree with, and what indexes
// fall back to where their own scan can prove nothing.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "index/item_index.h"
#include "index/level_vectors.h"

namespace nestrec {

// The checks of ItemIndex::Search.
absl::Status CheckSearch(std::span<const float> query, const SearchOptions& options, int dim,
                         int64_t items);

// Scores all allowed items at the first `levels` levels. REQUIRES: CheckSearch is ok.
SearchResult ExhaustiveSearch(std::span<const float> query, const LevelVectors& items, int levels,
                              const SearchOptions& options);

}  // namespace nestrec
