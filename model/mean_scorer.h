// The mean of several scorers' scores: what several models reach together, as in a mean over seeds
// or a branch per modality. For measuring; such a mean is no nested model and is not served.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/scorer.h"

namespace nestrec {

class MeanScorer : public Scorer {
 public:
  // kInvalidArgument without scorers, or when their dims differ.
  static absl::StatusOr<std::unique_ptr<MeanScorer>> Create(
      std::vector<std::unique_ptr<const Scorer>> scorers);
  std::string name() const override { return "mean"; }
  std::vector<int> dims() const override { return scorers_.front()->dims(); }
  // kInternal when the scorers know different numbers of items.
  absl::Status Score(std::span<const History> histories, Visitor visit) const override;

 private:
  explicit MeanScorer(std::vector<std::unique_ptr<const Scorer>> scorers)
      : scorers_(std::move(scorers)) {}

  std::vector<std::unique_ptr<const Scorer>> scorers_;  // at least one
};

}  // namespace nestrec
