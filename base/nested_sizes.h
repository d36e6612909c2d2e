// The nested widths of one model: sizes s_1 < ... < s_M. Level j (0-based here) is the columns
// [s_{j-1}, s_j), with s_{-1} = 0. A model, an item store or a session state at `dim` = s_j is the
// first j + 1 levels of the widest one.
//
//   NESTREC_ASSIGN_OR_RETURN(NestedSizes sizes, NestedSizes::Parse("8,16,32"));
//   sizes.levels();      // 3
//   sizes.begin(1);      // 8
//   sizes.end(1);        // 16
//   sizes.width(2);      // 16
//   sizes.max_dim();     // 32
//
// Immutable value; safe to share between threads.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace nestrec {

class NestedSizes {
 public:
  static constexpr int kMinWidth = 2;  // layer norm of one column leaves only its shift
  static constexpr int kMaxDim = 65536;
  static constexpr int kMaxLevels = 64;

  // kInvalidArgument unless 1..kMaxLevels strictly increasing sizes, every level at least kMinWidth
  // wide and the last at most kMaxDim.
  static absl::StatusOr<NestedSizes> Create(std::vector<int> sizes);
  // Reads "8,16,32"; spaces allowed.
  static absl::StatusOr<NestedSizes> Parse(absl::string_view text);
  // 8, 16, 32, ... up to and including max_dim (which need not be a power of two).
  static absl::StatusOr<NestedSizes> Doubling(int max_dim);

  int levels() const { return static_cast<int>(sizes_.size()); }
  int max_dim() const { return sizes_.back(); }
  int begin(int level) const { return level == 0 ? 0 : sizes_[level - 1]; }
  int end(int level) const { return sizes_[level]; }
  int width(int level) const { return end(level) - begin(level); }
  const std::vector<int>& values() const { return sizes_; }

  // Number of levels of `dim`; kInvalidArgument, naming the sizes, when `dim` is not one of them.
  absl::StatusOr<int> LevelsOf(int dim) const;
  // The first `levels` sizes. REQUIRES: 1 <= levels <= this->levels().
  NestedSizes Prefix(int levels) const;
  // "8,16,32".
  std::string ToString() const;

  friend bool operator==(const NestedSizes& a, const NestedSizes& b) = default;

 private:
  explicit NestedSizes(std::vector<int> sizes) : sizes_(std::move(sizes)) {}
  std::vector<int> sizes_;
};

}  // namespace nestrec
