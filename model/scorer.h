// What the evaluator ranks with: something that scores every item for a history, at one or more
// sizes.
//
// Thread safety: Score may run in parallel on one scorer.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/dataset.h"
#include "model/encoder.h"

namespace nestrec {

class Scorer {
 public:
  // scores [histories, items + 1] row-major; column 0 is the padding item and has no meaning.
  using Visitor = absl::FunctionRef<absl::Status(int size_index, std::span<const float> scores)>;

  virtual ~Scorer() = default;
  virtual std::string name() const = 0;
  // The width of each size, narrow to wide; 0 for a scorer without a width.
  virtual std::vector<int> dims() const = 0;
  // Calls `visit` once per size, narrow to wide, and stops at its first error.
  virtual absl::Status Score(std::span<const History> histories, Visitor visit) const = 0;
};

// <z[:s], e[:s]> at every size of a model; the sizes share one pass over the columns.
class ModelScorer : public Scorer {
 public:
  // `encoder` must outlive the scorer. Uses the first `levels` levels (0: all).
  explicit ModelScorer(const Encoder* encoder, int levels = 0);
  std::string name() const override { return "model"; }
  std::vector<int> dims() const override;
  absl::Status Score(std::span<const History> histories, Visitor visit) const override;

 private:
  const Encoder* encoder_;
  int levels_;
};

// The same scores for everybody: how often an item occurs in the training part of the data.
class PopularityScorer : public Scorer {
 public:
  explicit PopularityScorer(const Dataset& dataset);
  std::string name() const override { return "popularity"; }
  std::vector<int> dims() const override { return {0}; }
  absl::Status Score(std::span<const History> histories, Visitor visit) const override;

 private:
  std::vector<float> counts_;  // [items + 1]
};

// Cosine of an item's features with those of the history's last item (zeros for an empty history);
// the last item itself is scored below all others.
class ContentNeighbourScorer : public Scorer {
 public:
  // kFailedPrecondition when the data has no features.
  static absl::StatusOr<std::unique_ptr<ContentNeighbourScorer>> Create(const Dataset& dataset);
  std::string name() const override { return "last item's content neighbours"; }
  std::vector<int> dims() const override { return {0}; }
  absl::Status Score(std::span<const History> histories, Visitor visit) const override;

 private:
  explicit ContentNeighbourScorer(Matrix unit) : unit_(std::move(unit)) {}
  Matrix unit_;  // [items + 1, F], rows of norm 1 (or 0)
};

// Item-based collaborative filtering on the last item alone: c(i, j) / sqrt(n_i n_j), with c the
// number of users whose training items hold both and n the number that hold one.
class CoVisitScorer : public Scorer {
 public:
  explicit CoVisitScorer(const Dataset& dataset);
  std::string name() const override { return "last item's co-visit neighbours"; }
  std::vector<int> dims() const override { return {0}; }
  absl::Status Score(std::span<const History> histories, Visitor visit) const override;

 private:
  struct Neighbour {
    int32_t item;
    float score;
  };
  int64_t rows_;
  std::vector<std::vector<Neighbour>> neighbours_;  // [items + 1]
};

}  // namespace nestrec
