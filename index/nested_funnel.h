// The steps of a search by codes, for one query. Private to index/nested_search.cc, which says what
// they are for.
//
// Thread safety: ScanBlock may run in parallel on different blocks; the rest not.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "index/nested_codes.h"
#include "index/nested_query.h"
#include "index/nested_search.h"
#include "index/top_items.h"

namespace nestrec {

// One query on its way through the funnel of index/nested_search.h, whose steps its methods are.
class Funnel {
 public:
  static constexpr int64_t kBlock = 1024;                 // items that are read together
  static constexpr int64_t kItemsWorthThreads = 1 << 14;  // below, threads cost more than they save

  Funnel(const NestedCodesRequest& request, const NestedSearchOptions& options,
         NestedScratch::PerQuery& scratch, NestedSearchStats& stats)
      : codes_(*request.codes),
        request_(request),
        options_(options),
        filter_(request.options.filter),
        k_(request.options.k),
        scratch_(scratch),
        stats_(stats),
        best_(request.options.k, request.options.min_score) {}

  // Step 1. After it, reads_all_items() says whether ScanBlock is to be called for all blocks.
  // `weights` is the query in the codes' coordinates (NestedQuery).
  void Plan(std::span<const double> weights);
  bool reads_all_items() const { return read_ > 0; }
  // Whether everything is to be scored, and a float scan (index/float_scan.h) may do it for Finish.
  bool scores_all_items() const;
  const NestedCodesRequest& request() const { return request_; }
  TopItems* best() { return &best_; }
  // `scored` items were offered to best() by a scan of everything, of the vectors or of a view.
  void SetScanned(int64_t scored, const ReducedView* view);
  void ScanBlock(int64_t begin, int64_t count);
  // Steps 3 to 5, or scoring everything.
  SearchResult Finish();

 private:
  bool Allows(int64_t row) const { return filter_ == nullptr || filter_->Allows(row + 1); }
  // A score that k items reach, and that min_score asks for.
  float goal() const { return std::max(best_.threshold(), goal_); }
  void Score(std::span<const int32_t> rows);
  void ScoreFew(std::span<const int32_t> items);
  void ScoreAll();
  void ReadSample(std::vector<std::vector<float>>& bounds, std::vector<float>& estimates);
  void Choose(std::vector<std::vector<float>>& bounds, std::vector<float>& estimates);
  bool TakeGivenPlan(int64_t allowed);
  void MakeRoom();
  float SeedBoundOfRuns() const;
  void SetGoal();
  void RaiseGoal(int steps);
  std::vector<int32_t> SelectRows(float threshold) const;
  void Select();
  void ReadListed(const NestedQuery::Step& step);
  void DropListed(const NestedQuery::Slack& slack);
  void ScoreListed();
  const NestedCodes::Group& group(const NestedQuery::Step& step) const {
    return codes_.groups()[static_cast<size_t>(step.group)];
  }
  // Of an item, for a step and for the bounds after so many of them.
  double StepBytes(const NestedQuery::Step& step) const {
    return static_cast<double>(group(step).row_bytes) * (step.low ? 2 : 1);
  }
  double BoundBytes() const { return static_cast<double>(codes_.bounds().row_bytes); }
  void AddBounds(int steps, int64_t begin, int64_t count, float* slacks) const;

  const NestedCodes& codes_;
  const NestedCodesRequest& request_;
  const NestedSearchOptions& options_;
  const ItemFilter* filter_;
  int64_t k_;
  NestedScratch::PerQuery& scratch_;
  NestedSearchStats& stats_;
  TopItems best_;
  std::optional<NestedQuery> query_;
  int read_ = 0;          // groups that are read for all items; 0: everything is scored
  bool scanned_ = false;  // everything, by SetScanned's caller
  int last_ = 0;          // groups that are read for those that are left
  float goal_ = -std::numeric_limits<float>::infinity();
  std::vector<int32_t> scored_;       // rows, ascending
  std::optional<float> seed_bound_;   // that a few times k items' bounds reach; none: not known yet
  std::vector<int32_t> rows_;         // what is left, ascending
  std::vector<float> sums_, bounds_;  // of rows_
};

}  // namespace nestrec
