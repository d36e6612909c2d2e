// Codes of item vectors at one width, which a search scans instead of the vectors: 4 + 4 bits for
// the columns where that is worth its bytes, and a bound on the rest.
//
// An item e (its first `dim` columns) is coded as scale * x: scale is |e|, rounded up, x = e /
// scale its direction, and r = B (x - mean) its coordinates (index/nested_transform.h), whose
// columns are in falling order of what they add to scores. They are cut into groups that end at
// kFirstWidth columns, at twice as many, four times as many and so on. Of group g of an item there
// are
//   high [row_bytes]  4 bits a column,          coordinate = (code - 7.5) * step
//   low  [row_bytes]  4 more bits a column,     coordinate = (16 high + low - 127.5) * step / 16
//   norm, error4, error8   |r_g|, and what 4 and 8 bits leave of it, in 7 bits, rounded up.
// A group that adds next to nothing has no low codes, or none at all (their arrays are empty). Row
// bytes are a multiple of kRowAlignment; missing columns are coded 0 and weigh 0. All arrays begin
// at a cache line. An item whose norm is near the end of float's range has scale NaN: its bounds
// are NaN, and searches always score it.
//
// Thread safety: immutable once created. Ownership: a view on the vectors, which the caller keeps;
// the codes themselves are in memory of their own, or in a mapped file (index/nested_store.h).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "index/level_vectors.h"
#include "index/nested_kernels.h"
#include "index/nested_transform.h"

namespace nestrec {

class NestedCodes {
 public:
  static constexpr int kFirstWidth = 128;
  // Below these codes would be no smaller than the vectors, or no faster: there are none then, and
  // groups() is empty.
  static constexpr int kLeastDim = 32;
  static constexpr int64_t kLeastItems = 1024;
  static constexpr bool Worthwhile(int64_t dim, int64_t items) {
    return dim >= kLeastDim && items >= kLeastItems;
  }
  // Of a column's deviation. 0.335 leaves Gaussian columns the least error (Max, Quantizing for
  // minimum distortion, 1960), but clips items that are far out; this costs 8% and does not.
  static constexpr float kStep = 0.42f;

  struct Options {
    // [n, dim] examples of queries, to order columns by; none: the items stand in.
    std::span<const float> queries;
    int64_t fit_rows = 16384;  // items that the change of coordinates is fitted to
    // Planes are kept until what is left is this share of the bound without any codes.
    double kept_share = 0.03;
  };

  struct Group {
    int begin = 0, end = 0;  // columns
    int64_t row_bytes = 0;
    std::span<const uint8_t> high, low;  // [items, row_bytes], or empty
    std::vector<float> steps;            // [end - begin]
    // What 1 stands for in the bound rows, and the largest norm of an item's 4-bit codes, in
    // steps.
    float norm_unit = 0, error4_unit = 0, error8_unit = 0;
    float value4_norm = 0;
    // Means over a sample of the items, which tell what reading a plane is worth.
    double mean_norm = 0, mean_error4 = 0, mean_error8 = 0;
    bool has_high = false, has_low = false;

    CodeRows high_rows() const { return {high.data(), row_bytes}; }
    CodeRows low_rows() const { return {low.data(), row_bytes}; }
  };

  // All that codes are, apart from the vectors.
  struct Parts {
    NestedTransform transform;  // without `encode`, which nothing needs once codes are made
    std::vector<Group> groups;
    double largest_norm = 0;
    std::span<const float> scales;    // [items]; empty without groups, as bounds are
    std::span<const uint8_t> bounds;  // [items, bound_bytes]
    int64_t bound_bytes = 0;
    std::shared_ptr<const void> owner;  // of the arrays
  };

  // Of all levels of `vectors`. kInvalidArgument: inconsistent vectors, or a value that is not
  // finite (item and column, or example, are named). kResourceExhausted: out of memory.
  static absl::StatusOr<std::unique_ptr<const NestedCodes>> Create(const LevelVectors& vectors,
                                                                   const Options& options);
  // Of parts that Create made of these vectors.
  static std::unique_ptr<const NestedCodes> FromParts(const LevelVectors& vectors, Parts parts);
  const Parts& parts() const { return parts_; }

  const LevelVectors& vectors() const { return vectors_; }
  int64_t dim() const { return vectors_.sizes.max_dim(); }
  int64_t items() const { return vectors_.items(); }
  const NestedTransform& transform() const { return parts_.transform; }
  const std::vector<Group>& groups() const { return parts_.groups; }
  const float* scales() const { return parts_.scales.data(); }  // [items]
  // No item's vector has a greater norm; infinity where one is beyond what codes take.
  double largest_norm() const { return parts_.largest_norm; }
  // Bound rows, byte rows of nested_kernels.h: all groups' norms, all error4, all error8.
  CodeRows bounds() const { return {parts_.bounds.data(), parts_.bound_bytes}; }
  static int64_t BoundBytes(int64_t groups);
  static int64_t RowBytes(int64_t columns);  // of 4 bits each

  // Canonical scores by the processor's widest instructions, of `count` items from `begin` and of
  // the listed ones (0-based: row r is item r + 1). `query` is [dim]; `sums` is working memory,
  // [count].
  void Scores(std::span<const float> query, int64_t begin, int64_t count, double* sums,
              float* scores) const;
  void ScoresAt(std::span<const float> query, std::span<const int32_t> rows, double* sums,
                float* scores) const;

  // False once a mapped file that holds the codes has lost bytes (base/mapping_guard.h).
  bool intact() const;

  // What is held beside the vectors, and the vectors' columns themselves.
  int64_t bytes() const;
  int64_t vector_bytes() const { return items() * dim() * vectors_.value_bytes(); }

 private:
  explicit NestedCodes(LevelVectors vectors) : vectors_(std::move(vectors)) {}
  absl::Status Build(const Options& options);
  absl::Status Fit(const Options& options);
  void MakeGroups(std::span<const double> deviations);
  void MeasureSample(std::span<const double> coordinates);
  void ChoosePlanes(std::span<const double> weights, double kept_share);
  struct Arrays;
  struct Measures;
  absl::Status EncodeRows(int64_t begin, int64_t count, Arrays& arrays, Measures& measures);
  void SetBounds(const Measures& measures, Arrays& arrays);

  LevelVectors vectors_;
  Parts parts_;
};

}  // namespace nestrec
