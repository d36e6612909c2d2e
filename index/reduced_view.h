// Item vectors of one width in fewer columns, for catalogues whose matrix has a lower rank than it
// has columns: a second exact view of the same scores.
//
//   NESTREC_ASSIGN_OR_RETURN(auto view, ReducedView::Create(vectors));
//   if (view != nullptr) std::vector<ReducedView::Query> queries = view->Project({z});
//
// Vectors that a model makes of F features of an item, e = W f + b, are such: at any width s above
// F they lie in F dimensions about their mean. Nothing is known of models here; the rank is found
// from the vectors. With C [columns, s], rows orthonormal but for rounding, item i is
//
//   x_i = mean + C^T y_i + rest_i,   y_i = C (x_i - mean), rounded to float,
//
// which defines rest_i whatever C and y are; its norm is measured, in double, for every item. So
//
//   <z, x_i> = <z, mean> + <C z, y_i> + <z, rest_i>.                                          (1)
//
// <z, mean> is the same for all items and changes no order. With w = C z, computed in double and
// rounded to float, and p the sum of <w, y_i> in float, the canonical score (index/score.h) is
// within `error` of <z, mean> + p:
//
//   error = |z| max |rest_i| + |w - C z| max |y_i|
//         + gamma(columns) |w| max |y_i|, the rounding of p as in index/float_scan.h
//         + 2^-22 |z| max |x_i|, the canonical score's own and that of <z, mean>              (2)
//
// and some underflow. So a scan of y in place of x (FloatScan) is as exact as one of x: what can be
// among the best is scored canonically, from x.
//
// How C is found (it matters to speed alone): leading eigenvectors of the items' second moments
// about a mean, so many that what they leave is kTolerance of the items' root mean square norm.
//
// Thread safety: immutable once made. Making one uses OpenMP's threads. Ownership: all in memory of
// its own.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "index/aligned_array.h"
#include "index/level_vectors.h"

namespace nestrec {

class ReducedView {
 public:
  // A view of more columns saves too little of a scan: at three quarters of them a batch took 0.85
  // of the time, for 0.78 of the vectors' bytes.
  static constexpr double kMostShare = 0.625;
  // Of more items there is none: of so many with 1024 columns a view of 384 takes 4 seconds of a
  // core to make, at every start, and 0.2 GB.
  static constexpr int64_t kMostItems = int64_t{1} << 17;
  // Float16's rounding leaves 1.2e-4 of vectors that were of lower rank before it, float32's 3e-7.
  static constexpr double kTolerance = 2.5e-4;

  // How many columns a view may have at most; 0: there is none.
  static int64_t MostColumns(int64_t dim, int64_t items);
  // What a view of vectors of such a rank takes in memory; 0: there is none.
  static int64_t BytesFor(int64_t dim, int64_t items, int64_t rank);

  // Of all levels of `vectors`, or null where their rank is too high, where there are too many
  // items, or where norms leave float's range. kInvalidArgument: inconsistent vectors.
  // kResourceExhausted: out of memory. kInternal: LAPACK failed.
  static absl::StatusOr<std::unique_ptr<const ReducedView>> Create(const LevelVectors& vectors);

  int64_t items() const { return items_; }
  int64_t dim() const { return dim_; }
  int64_t columns() const { return columns_; }
  const float* rows() const { return rows_.data(); }  // y, [items, columns]
  double largest_rest() const { return largest_rest_; }
  int64_t scanned_bytes() const { return static_cast<int64_t>(rows_.bytes()); }
  int64_t bytes() const;  // in memory, all in all

  struct Query {
    std::vector<float> weights;  // w, [columns]
    double offset = 0;           // <z, mean>
    double error = 0;            // (2)
  };
  // Whether float's range holds w. REQUIRES: FloatScanHolds for the query (index/float_scan.h).
  bool Holds(std::span<const float> query) const;
  // Queries are [dim] each; C is read once for all.
  std::vector<Query> Project(std::span<const std::span<const float>> queries) const;

 private:
  ReducedView(int64_t items, int64_t dim) : items_(items), dim_(dim) {}
  // These tell whether there is a view.
  absl::StatusOr<bool> Make(const LevelVectors& vectors);
  // C from second moments about the mean, of which the lower triangle is read.
  absl::StatusOr<bool> Fit(std::vector<double> moments);
  // y of all items, and what is left of them.
  absl::StatusOr<bool> Fill(const LevelVectors& vectors);

  int64_t items_;
  int64_t dim_;
  int64_t columns_ = 0;
  std::vector<double> mean_;   // [dim]
  std::vector<float> decode_;  // C^T, [dim, columns]
  double decode_norm_ = 0;     // Frobenius
  AlignedArray<float> rows_;   // [items, columns]
  // Norms: of x, of y, of the rest, of the mean; no item's is larger.
  double largest_item_ = 0, largest_row_ = 0, largest_rest_ = 0, mean_norm_ = 0;
};

}  // namespace nestrec
