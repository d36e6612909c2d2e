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

// One user of an evaluation.
struct RankQuery {
  History history;                // the user is scored by it
  int32_t target;                 // 1 .. items: whose rank is asked for
  std::span<const int32_t> seen;  // items, each once
};

// The target's rank is 1 + before; among unseen items alone, 1 + before - seen_before.
struct TargetRank {
  float score;          // of the target
  int64_t before;       // items with a higher score, or the same score and a lower number
  int64_t seen_before;  // those of them that are `seen`
};

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

  // ranks [queries]
  using RankVisitor =
      absl::FunctionRef<absl::Status(int size_index, std::span<const TargetRank> ranks)>;
  // Calls `visit` once per size, narrow to wide, and stops at its first error. Here: by Score.
  // kInvalidArgument when the scorer knows another number of items than `items`.
  virtual absl::Status Rank(std::span<const RankQuery> queries, int64_t items,
                            RankVisitor visit) const;
  // The same scorer, made ready for histories of so many items in all; null: it is ready as it is.
  // This one must outlive it.
  virtual std::unique_ptr<const Scorer> PreparedFor(int64_t positions) const {
    (void)positions;
    return nullptr;
  }

 protected:
  // The error of Rank's where `known` and `items` differ.
  absl::Status CheckItems(int64_t known, int64_t items) const;
};

// <z[:s], e[:s]> at every size of a model; the sizes share one pass over the columns. Rank keeps no
// scores (model/item_ranks.h); its sums may differ from Score's in their last bits.
class ModelScorer : public Scorer {
 public:
  // `encoder` must outlive the scorer. Uses the first `levels` levels (0: all).
  explicit ModelScorer(const Encoder* encoder, int levels = 0);
  std::string name() const override { return "model"; }
  std::vector<int> dims() const override;
  absl::Status Score(std::span<const History> histories, Visitor visit) const override;
  absl::Status Rank(std::span<const RankQuery> queries, int64_t items,
                    RankVisitor visit) const override;
  // With an InputTable, where that is worth it and takes at most 256 MiB.
  std::unique_ptr<const Scorer> PreparedFor(int64_t positions) const override;

 private:
  const Encoder* encoder_;
  int levels_;
  std::unique_ptr<const InputTable> inputs_;  // or null
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
