// The nested index of one width from settings in words, as configurations have them.
//
//   NESTREC_ASSIGN_OR_RETURN(auto index, BuildNestedIndex(vectors, levels, {}, checkpoint));
#pragma once

#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "index/item_index.h"
#include "index/level_vectors.h"

namespace nestrec {

// What configurations call it, beside FAISS's factory strings.
inline constexpr char kNestedFactory[] = "nested";

struct NestedIndexOptions {
  // "recall=0.95": approximate, settings found by trying; "candidates=500": scores at most so many
  // items, approximate; both, separated by a comma. Empty: exact.
  std::string parameters;
  // [n, the first `levels` levels' columns] examples of queries; none: the items stand in. See
  // NestedIndex::Options.
  std::span<const float> queries;
};

// Views the first `levels` levels and holds codes beside them. `owner` keeps the vectors' memory
// alive as long as the index; null when the caller does.
//
// kInvalidArgument: inconsistent vectors, `levels` out of range, a value that is not finite (item
// and column are named), parameters that are not as above. kResourceExhausted: out of memory.
absl::StatusOr<std::unique_ptr<const ItemIndex>> BuildNestedIndex(
    const LevelVectors& vectors, int levels, const NestedIndexOptions& options,
    std::shared_ptr<const void> owner);

}  // namespace nestrec
