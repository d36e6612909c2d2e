// Search in a nested store: a funnel that reads a few bits of all items, drops those whose bound
// (index/nested_query.h) cannot reach the k-th best score, reads more of the rest, and scores what
// is left canonically.
//
//   1. A spread sample of the items is read in full, which tells how many items each group of
//      columns will leave, and so how many groups are worth reading for all items, or whether
//      scoring everything is cheaper.
//   2. Those groups are read for all items, one block of items after the other for all queries of a
//      batch, while the block's codes are in the cache.
//   3. The items with the highest bounds are scored: the k-th best of them is a score to beat.
//   4. Items that cannot beat it are dropped; the next group is read for the rest, and so on; then
//      the low codes.
//   5. What is left is scored, highest bound first, until the next bound cannot beat the k-th best.
//
// Thread safety: pure functions; a Scratch belongs to one call at a time. A search for one query
// uses OpenMP's threads where there are many items, a batch gives each thread queries of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "index/aligned_array.h"
#include "index/item_index.h"
#include "index/nested_query.h"
#include "index/nested_store.h"

namespace nestrec {

// What a search did, for reports and for choosing.
struct NestedSearchStats {
  bool plain = false;       // everything was scored
  int groups_read = 0;      // for all items
  int64_t bytes_read = 0;   // of codes, bounds and vectors
  int64_t after_scan = 0;   // items left when the groups for all items were read
  int64_t after_codes = 0;  // when all 4-bit codes were read
  int64_t scored = 0;       // canonically
};

struct NestedSearchOptions {
  // 1: exact. Below: bounds count for this share (NestedQuery), and results are approximate.
  float share = 1;
  // At most so many items are scored canonically; 0: as many as it takes. Approximate when set.
  int64_t most_scored = 0;
  // False: score everything.
  bool funnel = true;
};

struct NestedSearchRequest {
  std::span<const float> query;  // [sizes.end(levels - 1)]
  int levels;
  SearchOptions options;
};

// Working memory, kept between searches because getting it from the system costs as much as a scan.
struct NestedScratch {
  struct PerQuery {
    AlignedArray<float> sums, bounds;  // [items]
  };
  std::vector<PerQuery> queries;
};

// Results in the order of the requests. REQUIRES: every request passed CheckSearch. May throw
// std::bad_alloc.
std::vector<SearchResult> NestedSearchBatch(const NestedStore& store,
                                            std::span<const NestedSearchRequest> requests,
                                            const NestedSearchOptions& options,
                                            NestedScratch& scratch,
                                            std::span<NestedSearchStats> stats);

}  // namespace nestrec
