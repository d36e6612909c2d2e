// What every item brings into the first block's recurrence, computed once per item instead of once
// per position of a history: the input side of its gates, B LN1(e_i) + b_B of an LRU and W LN1(e_i)
// + b of a GRU's three. Where histories have many more positions than there are items, as in an
// evaluation, the first block's input costs next to nothing with it.
//
// The values have the bits that the encoder computes by itself. Attention has no such table: what
// enters it depends on the place in the history.
//
// Thread safety: immutable once made.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/checkpoint.h"

namespace nestrec {

// The layers that a recurrent mixer's input passes, in the order of its gates; none for attention.
std::vector<const LinearLevel*> InputLayers(const ModelView& view, const BlockLevel& block);

class InputTable {
 public:
  // The first `levels` levels; null where it would take more than `most_bytes`, or the mixer has
  // none. Runs on the calling thread.
  static std::unique_ptr<const InputTable> Make(const ModelView& view, int levels,
                                                int64_t most_bytes);

  int levels() const { return static_cast<int>(values_.size()); }
  // [w_j] of an item, 0 .. item_rows - 1, where 0 is the input of an empty history.
  const float* Row(int level, size_t gate, int64_t item, int width) const {
    return values_[static_cast<size_t>(level)][gate].get() + item * width;
  }

 private:
  using Gates = std::vector<std::unique_ptr<float[]>>;  // of [item_rows, w_j] each
  std::vector<Gates> values_;                           // [levels]
};

}  // namespace nestrec
