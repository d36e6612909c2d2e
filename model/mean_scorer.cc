#include "model/mean_scorer.h"

#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace nestrec {

absl::StatusOr<std::unique_ptr<MeanScorer>> MeanScorer::Create(
    std::vector<std::unique_ptr<const Scorer>> scorers) {
  if (scorers.empty()) return absl::InvalidArgumentError("a mean of no scorers");
  for (const auto& scorer : scorers) {
    if (scorer->dims() != scorers.front()->dims()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a mean of scorers of different dims: ", absl::StrJoin(scorers.front()->dims(), ","),
          " and ", absl::StrJoin(scorer->dims(), ",")));
    }
  }
  return std::unique_ptr<MeanScorer>(new MeanScorer(std::move(scorers)));
}

absl::Status MeanScorer::Score(std::span<const History> histories, Visitor visit) const {
  std::vector<std::vector<float>> sums(dims().size());
  for (const auto& scorer : scorers_) {
    NESTREC_RETURN_IF_ERROR(scorer->Score(
        histories, [&](int size_index, std::span<const float> scores) -> absl::Status {
          std::vector<float>& sum = sums[static_cast<size_t>(size_index)];
          if (sum.empty()) sum.resize(scores.size(), 0.0f);
          if (sum.size() != scores.size()) {
            return absl::InternalError("scorers of a mean know different numbers of items");
          }
          for (size_t i = 0; i < sum.size(); ++i) sum[i] += scores[i];
          return absl::OkStatus();
        }));
  }
  for (size_t size = 0; size < sums.size(); ++size) {
    for (float& value : sums[size]) value /= static_cast<float>(scorers_.size());
    NESTREC_RETURN_IF_ERROR(visit(static_cast<int>(size), sums[size]));
  }
  return absl::OkStatus();
}

}  // namespace nestrec
