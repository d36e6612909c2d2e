// Item embeddings that stand in for the model's own, or follow them: items that came or changed
// after the model was made.
//
// Thread safety: const methods may run in parallel.
#pragma once

#include <cstdint>

namespace nestrec {

class ItemRows {
 public:
  virtual ~ItemRows() = default;
  // An item's embedding, [D] in one piece, alive as long as this object; null: the model's table
  // has the item's row, or nobody has.
  virtual const float* RowOf(int32_t item) const = 0;
};

}  // namespace nestrec
