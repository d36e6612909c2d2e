// Top-k by cosine instead of inner product: which items are alike, whatever their length. An item's
// length says how popular it is as much as what it is like, so neighbours by inner product are
// mostly the same few items.
//
//   NESTREC_ASSIGN_OR_RETURN(auto norms, ItemNorms::Create(vectors));
//   const CosineIndex index(vectors, /*levels=*/3, norms);
//   NESTREC_ASSIGN_OR_RETURN(SearchResult alike, index.Search(vector, {.k = 10}));
//
// The score of query q and item e at a width s is
//
//   float(<q, e> / sqrt(<q, q> <e, e>)), all of them cut to s
//
// with every product summed as index/score.h does, in double; 0 where either vector is zero, and
// never outside -1 to 1. It is computed for every allowed item, so results are exact: one pass over
// the first `levels` levels, as a flat index makes.
//
// Thread safety: const methods may run in parallel.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "index/item_index.h"
#include "index/level_vectors.h"

namespace nestrec {

// <e, e> of every row at every width: 8 bytes a row and width. Immutable.
class ItemNorms {
 public:
  // kInvalidArgument for inconsistent vectors, kResourceExhausted: out of memory.
  static absl::StatusOr<std::shared_ptr<const ItemNorms>> Create(const LevelVectors& vectors);

  // [rows]
  std::span<const double> squares(int levels) const {
    return squares_[static_cast<size_t>(levels) - 1];
  }

 private:
  std::vector<std::vector<double>> squares_;  // by levels - 1
};

// <v, v> at the first `levels` levels of a vector that is in one piece.
double SquareOf(std::span<const float> vector, const NestedSizes& sizes, int levels);
// The score from its three sums.
float CosineFromSums(double product, double query_square, double item_square);

class CosineIndex final : public ItemIndex {
 public:
  // Whoever makes it keeps the vectors' memory alive. REQUIRES: norms of these vectors,
  // 1 <= levels <= vectors.sizes.levels().
  CosineIndex(const LevelVectors& vectors, int levels, std::shared_ptr<const ItemNorms> norms)
      : vectors_(vectors), levels_(levels), norms_(std::move(norms)) {}

  absl::StatusOr<SearchResult> Search(std::span<const float> query,
                                      const SearchOptions& options) const override;
  int dim() const override { return vectors_.sizes.end(levels_ - 1); }
  int64_t items() const override { return vectors_.items(); }
  int64_t bytes() const override { return vectors_.rows * static_cast<int64_t>(sizeof(double)); }
  bool exact() const override { return true; }
  std::string description() const override { return "cosine of all items"; }

 private:
  const LevelVectors vectors_;
  const int levels_;
  const std::shared_ptr<const ItemNorms> norms_;
};

}  // namespace nestrec
