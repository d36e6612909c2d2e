// The nested index: one store of vectors for all widths, exact unless asked otherwise.
//
//   NESTREC_ASSIGN_OR_RETURN(auto index, NestedIndex::Create(vectors, {}, checkpoint));
//   NESTREC_ASSIGN_OR_RETURN(SearchResult best, index->Search(z, /*levels=*/3, {.k = 10}));
//   std::unique_ptr<const ItemIndex> at64 = NestedIndex::AtLevels(index, 4, {});
//
// The vectors are a level-major view (index/level_vectors.h), of which a width is the first levels.
// Beside it every width has codes that searches scan in place of the vectors, a tenth of them or so
// (index/nested_codes.h). Widths are named by their number of levels. Results are those of brute
// force by canonical score (index/score.h), in set and order, for any data, and are marked `exact`;
// see index/nested_search.h for how. With a recall target or a limit on what is scored they are
// approximate, and marked so.
//
// Whether the funnel or plain scoring answers a width is measured when the index is made, and
// decided again for every query from a sample of the items; among few items the sample would cost
// as much as the search, and the examples' usual plan is every query's. Where the vectors' rank is
// lower than their width, plain scoring has a second view of them, in fewer columns
// (index/reduced_view.h): it is measured too, and kept where it is the fastest.
//
// Thread safety: const methods may run in parallel. Each search in progress holds 8 bytes an item,
// each of a batch too; an ItemIndex of AtLevels does at most as many together as take 64 MiB.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "index/item_index.h"
#include "index/level_vectors.h"
#include "index/nested_codes.h"
#include "index/nested_search.h"
#include "index/reduced_view.h"

namespace nestrec {

// One query of a batch.
struct NestedSearchRequest {
  std::span<const float> query;  // [sizes.end(levels - 1)]
  int levels;
  SearchOptions options;
};

class NestedIndex {
 public:
  struct Options {
    // [n, D] examples of queries: columns are ordered for them, and approximate settings are found
    // with them. None: items stand in, which makes searches a little slower, never wrong.
    std::span<const float> queries;
    // Widths of fewer levels have no codes and are not searched.
    int first_levels = 1;
    // False: the funnel is used wherever a query's sample speaks for it, and views in fewer columns
    // are kept wherever there are any, as tests want.
    bool measure = true;
    // False: no views in fewer columns.
    bool reduce = true;
  };

  // How a search may trade exactness for speed.
  struct Approximation {
    // In (0, 1): that share of the true best is found on average over queries like the examples. 1:
    // exact.
    float recall = 1;
    // At most so many items are scored canonically; 0: no limit.
    int64_t candidates = 0;
  };

  // Errors of NestedCodes::Create. `owner` keeps the vectors.
  static absl::StatusOr<std::shared_ptr<const NestedIndex>> Create(
      const LevelVectors& vectors, const Options& options, std::shared_ptr<const void> owner);
  // Of codes that are at hand, of consecutive widths, narrow to wide; options.first_levels is not
  // looked at. REQUIRES: at least one, of the same vectors.
  static absl::StatusOr<std::shared_ptr<const NestedIndex>> CreateOf(
      std::vector<std::unique_ptr<const NestedCodes>> codes, const Options& options,
      std::shared_ptr<const void> owner);
  ~NestedIndex();
  NestedIndex(const NestedIndex&) = delete;
  NestedIndex& operator=(const NestedIndex&) = delete;

  const NestedSizes& sizes() const { return vectors_.sizes; }
  int64_t items() const { return vectors_.items(); }
  // REQUIRES: the width is searched.
  const NestedCodes& codes(int levels) const { return *codes_[static_cast<size_t>(levels) - 1]; }
  // Of the codes of all widths, beside the vectors; of the views in fewer columns, beside both.
  int64_t bytes() const;
  int64_t reduced_bytes() const;

  // Errors of ItemIndex::Search, and kInvalidArgument for levels that the index does not hold or
  // settings that FindOptions did not return. `stats` may be null.
  absl::StatusOr<SearchResult> Search(std::span<const float> query, int levels,
                                      const SearchOptions& options,
                                      const NestedSearchOptions& how = {},
                                      NestedSearchStats* stats = nullptr) const;
  // Many queries, each with a width of its own: what they share is read once for a block of them.
  // Results in the order of the requests; the first error, naming the request, otherwise.
  absl::StatusOr<std::vector<SearchResult>> SearchBatch(
      std::span<const NestedSearchRequest> requests, const NestedSearchOptions& how = {}) const;

  // The settings that reach an approximation at a width for k items, found by trying them on
  // examples: the smallest share of the bounds with which the recall is reached. kInvalidArgument:
  // recall outside (0, 1], candidates < 0, levels out of range.
  absl::StatusOr<NestedSearchOptions> FindOptions(int levels, int64_t k,
                                                  const Approximation& approximation) const;

  // The index at one width, behind the interface that all have: index/nested_builder.h makes one of
  // settings in words. Errors of FindOptions.
  static absl::StatusOr<std::unique_ptr<const ItemIndex>> AtLevels(
      std::shared_ptr<const NestedIndex> index, int levels, const Approximation& approximation);

  // What was fastest at this width when the index was made, for a query of so many that are asked
  // together: the funnel or scoring all vectors; the view in fewer columns rather than either.
  bool funnel(int levels, int64_t queries, int64_t k) const {
    return ChoicesOf(levels).funnel[BatchOf(queries)][ManyOf(k)];
  }
  bool reduced(int levels, int64_t queries, int64_t k) const {
    return ChoicesOf(levels).reduced[BatchOf(queries)][ManyOf(k)];
  }
  // Null where there is none.
  const ReducedView* reduced_view(int levels) const { return ChoicesOf(levels).view.get(); }
  // How many searches an ItemIndex of AtLevels does at once.
  int64_t MostTogether() const;

 private:
  NestedIndex(LevelVectors vectors, std::shared_ptr<const void> owner)
      : vectors_(std::move(vectors)), owner_(std::move(owner)) {}
  absl::Status CheckExamples(const Options& options) const;
  absl::Status Build(const Options& options);
  absl::Status Prepare(const Options& options);
  absl::Status CheckLevels(int levels) const;
  std::span<const float> Example(int64_t i, int levels) const;
  void KeepExamples(std::span<const float> queries);

  // From so many queries of a width on they are a small and a large batch, and from so many items
  // on k is large: what wins is measured for each.
  static constexpr int64_t kSmallBatch = 5;
  static constexpr int64_t kLargeBatch = 16;
  static constexpr int64_t kMany = 33;
  static size_t BatchOf(int64_t queries) {
    return (queries >= kSmallBatch ? 1 : 0) + (queries >= kLargeBatch ? 1 : 0);
  }
  static size_t ManyOf(int64_t k) { return k >= kMany ? 1 : 0; }
  // How a width is searched; by BatchOf, then by ManyOf.
  struct Choices {
    using Flags = std::array<std::array<bool, 2>, 3>;
    Flags funnel = {{{true, true}, {true, true}, {true, true}}};
    Flags reduced = {};  // by the view, which is faster than funnel and vectors
    // Where everything is scored, by the view in place of the vectors.
    Flags scans_view = {{{true, true}, {true, true}, {true, true}}};
    std::array<NestedPlan, 2> plans;  // by k
    std::unique_ptr<const ReducedView> view;
    bool worth_memory = false;  // the view, as far as trials went
  };
  const Choices& ChoicesOf(int levels) const { return choices_[static_cast<size_t>(levels) - 1]; }
  // Those of one width in a call: how many, the largest k, and whether the call has no others.
  struct Group {
    int64_t queries;
    int64_t k;
    bool alone;
  };
  NestedCodesRequest RequestOf(const NestedSearchRequest& request, const Group& group,
                               const NestedSearchOptions& how) const;

  // Trials: index/nested_trials.cc.
  enum class Way { kFunnel, kVectors, kView };
  absl::Status Choose(int levels, const Options& options);
  absl::Status Measure(int levels);
  // Sets what won, for these places among the choices. Adds the seconds that it took to `spent`.
  absl::Status Try(int levels, size_t batch, size_t many, double& spent);
  // What examples' samples speak for, as a rule; nothing where that is to score everything.
  absl::StatusOr<NestedPlan> UsualPlan(int levels, int64_t k) const;
  // Seconds for `batch` examples from the given one on.
  absl::StatusOr<double> TimeOf(int levels, int64_t example, int64_t batch, size_t many,
                                Way way) const;

  std::unique_ptr<NestedScratch> TakeScratch() const;
  void GiveBack(std::unique_ptr<NestedScratch> scratch) const;

  LevelVectors vectors_;
  std::shared_ptr<const void> owner_;
  int first_levels_ = 1;
  std::vector<std::unique_ptr<const NestedCodes>> codes_;  // by levels - 1
  std::vector<Choices> choices_;                           // by levels - 1
  std::vector<float> examples_;                            // [n, D]
  // Working memory that no search uses at the moment. Taken and given back by exchange, which is
  // all that a pool without an order needs.
  mutable std::array<std::atomic<NestedScratch*>, 8> scratch_ = {};
};

}  // namespace nestrec
