// Where a model's quality comes from, at a few of its sizes:
//
//   slices      the users of the unmodified run, by the length of their history and by how often
//               their target occurs in the training part of the data;
//   variations  the same users once more with one thing changed: the history shuffled, reversed or
//               cut to its last item; one modality taken out of the item embeddings.
//
//   NESTREC_ASSIGN_OR_RETURN(const Diagnosis diagnosis,
//                            Diagnosis::Create(&view, &info, &dataset, {.split = Split::kTest}));
//   NESTREC_ASSIGN_OR_RETURN(const DiagnosisReport report, diagnosis.Run(evaluation, evaluate));
//
// Orders are changed among the last max_len items alone, the ones that the model reads: what
// changes is the order and not what is known.
//
// Taking out modality m: every item's embedding e becomes e - W_m (f_m - zero_m), with W_m the
// modality's columns of the projector, f_m the item's features as the projector reads them, and
// zero_m their mean over all items. The mean is what zero is to features that were centred or
// whitened in training; with raw ones zeros themselves would also take away what all items have in
// common, a shift of every embedding that the encoder never saw and that tells no item from
// another. What else e holds (bias, other modalities, an item residual) stays, and so does row 0,
// the padding item. Embeddings are changed where items are read as well as where they are ranked.
//
// Thread safety: immutable; Run is const.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/checkpoint.h"
#include "model/dataset.h"
#include "model/evaluator.h"
#include "model/metrics.h"
#include "model/scorer.h"
#include "model/split.h"

namespace nestrec {

struct DiagnosisRow {
  std::string label;                    // "3-4", "history shuffled", "without image"
  int64_t users = 0;                    // never 0: buckets without users are left out
  std::vector<RankingMetrics> metrics;  // per size of the report; only padding masked
};

struct DiagnosisReport {
  std::vector<int> dims;
  DiagnosisRow whole;  // the unmodified run
  // Each bucket's users add up to the whole's.
  std::vector<DiagnosisRow> by_history_length;
  std::vector<DiagnosisRow> by_popularity;
  std::vector<DiagnosisRow> variations;
  std::string note;  // why no modality was taken out; else empty
};

struct DiagnosisOptions {
  Split split = Split::kTest;
  std::vector<int> dims;  // narrow to wide; empty: narrowest, middle and widest
  uint64_t seed = 1;      // of the shuffled order
};

class Diagnosis {
 public:
  using Evaluator = absl::FunctionRef<absl::StatusOr<Evaluation>(const Scorer& scorer)>;

  // Checks everything that Run needs. All three must outlive the result. A model with several
  // modalities needs them in `dataset`, in any order.
  //
  // kInvalidArgument for dims that the model lacks; kFailedPrecondition for data with another
  // fingerprint, or without a modality of the model or with one of another shape. A projector that
  // does not reproduce the stored embeddings, although no item residual was trained, is no error:
  // the report's note says so.
  static absl::StatusOr<Diagnosis> Create(const ModelView* view, const ModelInfo* info,
                                          const Dataset* dataset, const DiagnosisOptions& options);

  const std::vector<int>& dims() const { return dims_; }

  // REQUIRES: `whole` is the evaluation of all sizes of the model on the dataset and split. Calls
  // `evaluate` once per variation, with a scorer of the sizes dims() that is named after it; its
  // errors (kCancelled) end the run.
  absl::StatusOr<DiagnosisReport> Run(const Evaluation& whole, Evaluator evaluate) const;

 private:
  Diagnosis(const ModelView* view, const ModelInfo* info, const Dataset* dataset)
      : view_(view), info_(info), dataset_(dataset) {}
  int levels() const { return levels_.back() + 1; }

  const ModelView* view_;
  const ModelInfo* info_;
  const Dataset* dataset_;
  std::vector<int> levels_;  // of dims_, 0-based
  std::vector<int> dims_;
  Split split_ = Split::kTest;
  uint64_t seed_ = 1;
  std::string note_;
};

// The parts, for whoever needs one alone.

enum class HistoryChange { kShuffled, kReversed, kLastOnly };

// `scorer` behind a change of every history's last `max_len` items. A shuffled order follows from
// the seed and the history alone, whatever the threads; a short history may keep its order.
class ChangedHistoryScorer : public Scorer {
 public:
  // `scorer` must outlive this one.
  ChangedHistoryScorer(const Scorer* scorer, HistoryChange change, int max_len, uint64_t seed)
      : scorer_(scorer), change_(change), max_len_(max_len), seed_(seed) {}
  std::string name() const override;
  std::vector<int> dims() const override { return scorer_->dims(); }
  absl::Status Score(std::span<const History> histories, Visitor visit) const override;
  // Seen items stay those of the query.
  absl::Status Rank(std::span<const RankQuery> queries, int64_t items,
                    RankVisitor visit) const override;

 private:
  std::vector<int32_t> Changed(History history) const;

  const Scorer* scorer_;
  HistoryChange change_;
  int max_len_;
  uint64_t seed_;
};

// `ranks` [size][user] as in Evaluation::ranks: of the users with enough events, in their order.

// By the number of items before the target: 1-2, 3-4, 5-9, 10-19, 20-49, 50-99, 100+.
std::vector<DiagnosisRow> SliceByHistoryLength(const Dataset& dataset, Split split,
                                               const std::vector<std::vector<int64_t>>& ranks);

// By the number of the target's training events: none at all, then up to five buckets of about as
// many users each; users with the same number stay together.
std::vector<DiagnosisRow> SliceByPopularity(const Dataset& dataset, Split split,
                                            const std::vector<std::vector<int64_t>>& ranks);

// The item embeddings of the first `levels` levels, each [items + 1, w_j], without modality
// `modality` of `info`. Errors as of Diagnosis::Create.
absl::StatusOr<std::vector<std::vector<float>>> ItemsWithoutModality(const ModelView& view,
                                                                     const ModelInfo& info,
                                                                     const Dataset& dataset,
                                                                     size_t modality, int levels);

}  // namespace nestrec
