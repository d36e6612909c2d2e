// Top-k search over item vectors at one width: the interface that every index has.
//
// Results are ordered by canonical score (index/score.h), highest first, ties by item number,
// lowest first. Shapes: a query is [dim] float32; items are numbered 1..items().
//
// Thread safety: const methods may run in parallel. Indexes may use OpenMP inside one search; a
// caller that runs many searches in parallel sets omp_set_num_threads(1) in its threads.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "index/item_filter.h"

namespace nestrec {

struct ScoredItem {
  int32_t item;
  float score;

  friend bool operator==(const ScoredItem&, const ScoredItem&) = default;
};

// The order of results: true when `a` stands before `b`.
inline bool RanksBefore(const ScoredItem& a, const ScoredItem& b) {
  return a.score != b.score ? a.score > b.score : a.item < b.item;
}

struct SearchOptions {
  int64_t k = 10;                      // how many; more than there are means all
  const ItemFilter* filter = nullptr;  // which items may come back; null: all
  std::optional<float> min_score;      // only items with at least this canonical score
};

struct SearchResult {
  // min(k, allowed items) of them, fewer only because of min_score.
  std::vector<ScoredItem> items;
  // True when `items` is proven to be what ranking all allowed items by canonical score gives.
  bool exact = false;
  // How many items were scored canonically: what the search cost beyond the index's own scan.
  int64_t rescored = 0;
};

// One of several searches.
struct IndexQuery {
  std::span<const float> query;
  SearchOptions options;
};

class ItemIndex {
 public:
  virtual ~ItemIndex() = default;

  // kInvalidArgument: k < 1, a query of another length or with a value that is not finite, a filter
  // over another number of items, a min_score that is not a number. kResourceExhausted: out of
  // memory. kInternal: the library behind the index failed.
  virtual absl::StatusOr<SearchResult> Search(std::span<const float> query,
                                              const SearchOptions& options) const = 0;
  // Many searches, in their order, together where that is cheaper: an index may read the items once
  // for several of them. Each result is, bit for bit, that of Search. The first error of any.
  virtual absl::StatusOr<std::vector<SearchResult>> SearchBatch(
      std::span<const IndexQuery> queries) const;

  virtual int dim() const = 0;
  virtual int64_t items() const = 0;
  // Memory that the index holds beside the vectors that it was built from.
  virtual int64_t bytes() const = 0;
  // Whether every search is exact.
  virtual bool exact() const = 0;
  // False once a file that the index is mapped from has lost bytes (base/mapping_guard.h). Whoever
  // has searched asks afterwards: what was found since may be anything.
  virtual bool intact() const { return true; }
  // For people: "faiss Flat".
  virtual std::string description() const = 0;
};

}  // namespace nestrec
