#include "server/batch_estimate.h"

#include <algorithm>
#include <utility>

namespace nestrec {
namespace {

// A width is chosen by the time that it takes no longer than in 19 of 20 cases; one that is ready
// in half of them is tried level by level.
constexpr double kSure = 0.95;
constexpr double kUsual = 0.5;

void Add(const std::vector<absl::Duration>& each, size_t times, std::vector<absl::Duration>& sums) {
  sums.resize(std::max(sums.size(), each.size()));
  for (size_t level = 0; level < each.size(); ++level) {
    sums[level] += each[level] * static_cast<int64_t>(times);
  }
}

std::vector<absl::Duration> AfterEncoding(const CostModel& costs, const BatchWork& work,
                                          double quantile) {
  std::vector<absl::Duration> after;
  for (const auto& [stage, searches] :
       {std::pair(Stage::kSearch, work.searches), std::pair(Stage::kSimilar, work.similar)}) {
    if (searches == 0) continue;
    Add(costs.PredictLevels(stage, static_cast<int64_t>(searches), quantile), 1, after);
  }
  if (after.empty()) return after;
  Add(costs.PredictLevels(Stage::kOther, 1, quantile), work.searches + work.similar, after);
  for (const int64_t rows : work.explained) {
    Add(costs.PredictLevels(Stage::kEncode, rows, quantile), 1, after);
  }
  return after;
}

}  // namespace

BatchEstimate EstimateBatch(const CostModel& costs, const BatchWork& work) {
  BatchEstimate estimate;
  const auto total = [&](double quantile, BatchEstimate& into) {
    into.after = AfterEncoding(costs, work, quantile);
    if (work.rows == 0) return into.after;
    into.encode = costs.PredictLevels(Stage::kEncode, work.rows, quantile);
    // A vector is answered when it is there.
    if (work.searches + work.similar == 0) into.after.resize(into.encode.size());
    std::vector<absl::Duration> sums;
    for (size_t level = 0; level < std::min(into.after.size(), into.encode.size()); ++level) {
      sums.push_back(into.encode[level] + into.after[level]);
    }
    return sums;
  };
  BatchEstimate usual;
  estimate.usual_total = total(kUsual, usual);
  estimate.total = total(kSure, estimate);
  return estimate;
}

}  // namespace nestrec
