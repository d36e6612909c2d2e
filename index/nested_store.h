// One store of item vectors for every width: a level-major view on the vectors themselves, and
// beside it codes of 4 + 4 bits a column that a search scans instead of the vectors.
//
//   NESTREC_ASSIGN_OR_RETURN(auto store, NestedStore::Create(vectors, {}, checkpoint));
//   store->groups_of(levels);  // the code groups that a query at the first `levels` levels reads
//
// An item e is coded as scale * x: scale is |e| over all levels, rounded up, x = e / scale its
// direction, and r = B (x - mean) its coordinates (index/nested_transform.h). Columns of r are cut
// into groups: the levels up to kNarrow columns together, every other level for itself, in two
// halves where it is at least kSplit wide. Of group g of an item there are
//   high [row_bytes]  4 bits a column,          coordinate = (code - 7.5) * step
//   low  [row_bytes]  4 more bits a column,     coordinate = (16 high + low - 127.5) * step / 16
//   norm, error4, error8   |r_g|, and what 4 and 8 bits leave of it, in 7 bits, rounded up.
// Row bytes are a multiple of kRowAlignment; missing columns are coded 0 and weigh 0. All arrays
// begin at a cache line. An item whose norm is no float has scale NaN: searches always score it.
//
// Sizes: D/2 bytes an item each for high and low (a quarter of the vectors together), 4 + 3 groups
// rounded up to 16 each for the bounds; bytes() has the sum.
//
// Thread safety: immutable once created. Ownership: a view on the vectors; `owner` keeps them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "index/aligned_array.h"
#include "index/level_vectors.h"
#include "index/nested_kernels.h"
#include "index/nested_transform.h"

namespace nestrec {

class NestedStore {
 public:
  static constexpr int kNarrow = 64;
  static constexpr int kSplit = 256;
  // Of a column's deviation. 0.335 leaves Gaussian columns the least error (Max, Quantizing for
  // minimum distortion, 1960), but clips items that are far out; this costs 8% and does not.
  static constexpr float kStep = 0.42f;

  struct Options {
    // [n, D] examples of queries, to order columns by; none: the items stand in.
    std::span<const float> queries;
    int64_t fit_rows = 16384;  // items that the change of coordinates is fitted to
  };

  struct Group {
    int begin = 0, end = 0;  // columns
    int level = 0;           // the last one that it covers
    int64_t row_bytes = 0;
    AlignedArray<uint8_t> high, low;  // [rows, row_bytes]
    std::vector<float> steps;         // [end - begin]
    // What 1 stands for in the bound rows, and the largest norm of an item's 4-bit codes, in
    // steps.
    float norm_unit = 0, error4_unit = 0, error8_unit = 0;
    float value4_norm = 0;

    CodeRows high_rows() const { return {high.data(), row_bytes}; }
    CodeRows low_rows() const { return {low.data(), row_bytes}; }
  };

  // kInvalidArgument: inconsistent vectors, or a value that is not finite (item and column are
  // named). kResourceExhausted: out of memory.
  static absl::StatusOr<std::shared_ptr<const NestedStore>> Create(
      const LevelVectors& vectors, const Options& options, std::shared_ptr<const void> owner);

  const LevelVectors& vectors() const { return vectors_; }
  const NestedSizes& sizes() const { return vectors_.sizes; }
  int64_t items() const { return vectors_.items(); }
  const NestedTransform& transform() const { return transform_; }
  const std::vector<Group>& groups() const { return groups_; }
  // How many groups, from the first, hold columns of the first `levels` levels.
  int groups_of(int levels) const;
  const float* scales() const { return scales_.data(); }  // [items]
  // Bound rows, byte rows of nested_kernels.h: in the first half the groups' norms, in the second
  // half error4; and error8 alone.
  CodeRows bounds4() const { return {bounds4_.data(), bound_bytes_}; }
  CodeRows bounds8() const { return {bounds8_.data(), error8_bytes_}; }
  // Canonical score of item row (0-based: item row + 1) at the first `levels` levels, by the
  // processor's widest instructions. `query` is [sizes.end(levels - 1)].
  float Score(std::span<const float> query, int levels, int64_t row) const;
  // Of `count` items from `begin`; `sums` is working memory, [count].
  void Scores(std::span<const float> query, int levels, int64_t begin, int64_t count, double* sums,
              float* scores) const;

  // What the store holds beside the vectors: codes and bounds.
  int64_t bytes() const;
  int64_t vector_bytes(int levels) const;

 private:
  NestedStore(LevelVectors vectors, std::shared_ptr<const void> owner)
      : vectors_(std::move(vectors)),
        owner_(std::move(owner)),
        transform_{.sizes = vectors_.sizes, .mean = {}, .decode = {}, .encode = {}} {}
  absl::Status Build(const Options& options);
  absl::Status Fit(const Options& options);
  void MakeGroups(std::span<const double> deviations);
  struct Measures;
  absl::Status EncodeRows(int64_t begin, int64_t count, Measures& measures);
  void SetBounds(const Measures& measures);

  LevelVectors vectors_;
  std::shared_ptr<const void> owner_;
  NestedTransform transform_;
  std::vector<Group> groups_;
  AlignedArray<float> scales_;
  AlignedArray<uint8_t> bounds4_, bounds8_;
  int64_t bound_bytes_ = 0;
  int64_t error8_bytes_ = 0;
};

}  // namespace nestrec
