// What serving costs on this machine now, learned from what it did cost: quantiles of the time per
// stage, width and batch size. The width policy asks it what fits into a budget.
//
//   CostModel costs(sizes, SteadyClock());
//   costs.Record(Stage::kEncode, /*levels=*/4, /*rows=*/50, took);
//   costs.Predict(Stage::kEncode, 4, 60, 0.95);   // nothing before the first Record of the stage
//
// `rows` is what a stage's time grows with: kEncode the items of the histories of a batch, kSearch
// and kSimilar (the search by cosine) its requests, kOther 1. They are told apart by powers of two.
//
// Where little or nothing was seen lately of a width, the estimate leans on the widths beside it:
// on the line between two of them over the work (kEncode: multiplications, kSearch and kSimilar:
// dim, others: the same at all), and beyond them by the ratio of the work, downwards to an eighth
// at most. What was seen counts half after kFreshFor, but only against what was seen since: a width
// that was slow in a bad minute and has not been used from then on is not avoided for ever. Of a
// batch size that was never seen, the nearest one's times are scaled in the same way. Wider never
// counts as cheaper.
//
// Seeding: run every width a few times before serving and Record it.
//
// Memory: at most kMaxRowClasses * levels * stages sketches of 900 bytes, made when first needed.
//
// Thread safety: all methods may be called from any thread; a lock is held for some microseconds.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "base/nested_sizes.h"
#include "server/clock.h"
#include "server/mutex.h"
#include "server/quantile_sketch.h"

namespace nestrec {

enum class Stage { kEncode, kSearch, kSimilar, kOther };

class CostModel {
 public:
  static constexpr int kMaxRowClasses = 14;  // 2^13 rows and more are one
  static constexpr absl::Duration kFreshFor = absl::Seconds(10);

  CostModel(const NestedSizes& sizes, Clock clock);

  // REQUIRES: 1 <= levels <= sizes.levels(), rows >= 1.
  void Record(Stage stage, int levels, int64_t rows, absl::Duration took);

  // Multiplications per row of kEncode at these levels, up to a factor.
  double EncodeWork(int levels) const { return encode_work_[static_cast<size_t>(levels) - 1]; }

  // The time that a share `quantile` of such work stays within; nothing where nothing at all was
  // recorded of the stage. REQUIRES: as Record, 0 <= quantile <= 1.
  std::optional<absl::Duration> Predict(Stage stage, int levels, int64_t rows,
                                        double quantile) const;
  // The same for 1, 2, ... levels, never falling; empty where nothing was recorded.
  std::vector<absl::Duration> PredictLevels(Stage stage, int64_t rows, double quantile) const;

 private:
  static constexpr int kStages = 4;
  struct Cell {
    QuantileSketch sketch;
    Instant newest;
  };
  using RowClass = std::vector<std::unique_ptr<Cell>>;  // [levels]
  // What one width's records say. `evidence` is in fresh observations, 0: none.
  struct Estimate {
    double microseconds = 0;
    double evidence = 0;
  };

  static int RowClassOf(int64_t rows);
  double Work(Stage stage, size_t level) const;
  // The estimates of a row class, from its own records alone and then with help from beside.
  std::vector<Estimate> Own(const RowClass& cells, double quantile, Instant now) const;
  std::vector<Estimate> WithNeighbours(Stage stage, const std::vector<Estimate>& own) const;

  const NestedSizes sizes_;
  const Clock clock_;
  std::vector<double> encode_work_;  // [levels]
  mutable Mutex mutex_;
  std::array<std::array<RowClass, kMaxRowClasses>, kStages> cells_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nestrec
