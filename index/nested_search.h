// Search by the codes of item vectors: a funnel that reads a few bits of all items, drops those
// whose bound (index/nested_query.h) cannot reach the k-th best score, reads more of the rest, and
// scores what is left canonically.
//
//   1. Codes are read in steps: the high or the low codes of one group of columns, what lowers
//      bounds the most for its bytes first. A spread sample of the items is read in full, which
//      tells how many items each step will leave, and so how many steps are worth reading for all
//      items, or whether scoring everything is cheaper. Among few items the sample costs as much as
//      the scan: there a plan may be given instead, found by earlier queries.
//   2. Those steps are read for all items, one block of items after the other for all queries of a
//      batch, while the block's codes are in the cache.
//   3. Of the items with the highest estimates all codes are read: the k-th of their lower bounds
//   is
//      a score to beat.
//   4. Items that cannot beat it are dropped; the next step is read for the rest, and so on.
//   5. What is left is scored, highest bound first, until the next bound cannot beat the k-th best.
//
// Where everything is scored, that is index/float_scan.h, of the vectors or of a view of them in
// fewer columns (index/reduced_view.h).
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
#include "index/nested_codes.h"
#include "index/nested_query.h"
#include "index/reduced_view.h"

namespace nestrec {

// How many steps of codes are worth reading.
struct NestedPlan {
  int for_all = 0;   // for all items
  int for_left = 0;  // for those that are left, these included
};

// What a search did, for reports and for choosing.
struct NestedSearchStats {
  bool plain = false;       // everything was scored
  bool reduced = false;     // by the view in fewer columns
  int steps_read = 0;       // of codes, for all items
  int steps_left = 0;       // for those that were left, these included
  int steps = 0;            // of codes, at most
  int64_t bytes_read = 0;   // of codes, bounds and vectors
  int64_t after_scan = 0;   // items left when the codes for all items were read
  int64_t after_codes = 0;  // when all codes that were worth it were read
  int64_t scored = 0;       // canonically
};

struct NestedSearchOptions {
  // 1: exact. Below: bounds count for this share (NestedQuery), and results are approximate.
  float share = 1;
  // At most so many items are scored canonically; 0: as many as it takes. Approximate when set.
  int64_t most_scored = 0;
  // False: score everything.
  bool funnel = true;
  // With funnel false: by the view in fewer columns, where there is one, in place of the vectors.
  bool reduced = false;
  // In place of a sample; for_all of 0 says nothing. What is found does not depend on it. Where a
  // filter leaves less than half of the items, or k is a larger share of them than plans are made
  // for, the sample is read all the same.
  NestedPlan plan = {};
};

struct NestedCodesRequest {
  const NestedCodes* codes;
  std::span<const float> query;  // [codes->dim()]
  SearchOptions options;
  bool funnel = true;    // false: score everything, as NestedSearchOptions::funnel for this one
  NestedPlan plan = {};  // as NestedSearchOptions::plan, which goes before it
  // Where everything is scored, by this view of the codes' vectors; null: by the vectors.
  const ReducedView* reduced = nullptr;
};

// Working memory, kept between searches because getting it from the system costs as much as a scan.
struct NestedScratch {
  static constexpr int64_t kRun = 64;
  struct PerQuery {
    AlignedArray<float> sums, bounds;  // [items]
    AlignedArray<float> highest;       // bound of every kRun items
  };
  std::vector<PerQuery> queries;
};

// Results in the order of the requests. Those that stand together share what they read: codes,
// where they have the same ones, and vectors, at whatever widths. REQUIRES: every request passed
// CheckSearch; all codes are of the same vectors, at widths of their own. May throw std::bad_alloc.
std::vector<SearchResult> SearchCodes(std::span<const NestedCodesRequest> requests,
                                      const NestedSearchOptions& options, NestedScratch& scratch,
                                      std::span<NestedSearchStats> stats);

}  // namespace nestrec
