// The nested index of one width from settings in words, as configurations have them.
//
//   NESTREC_ASSIGN_OR_RETURN(auto index, BuildNestedIndex(vectors, levels, {}, checkpoint));
#pragma once

#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "index/item_index.h"
#include "index/kept_index.h"
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
  // As NestedIndex::Options::reduce.
  bool reduce = true;
};

// Views the first `levels` levels and holds codes beside them. `owner` keeps the vectors' memory
// alive as long as the index; null when the caller does.
//
// kInvalidArgument: inconsistent vectors, `levels` out of range, a value that is not finite (item
// and column are named), parameters that are not as above. kResourceExhausted: out of memory.
absl::StatusOr<std::unique_ptr<const ItemIndex>> BuildNestedIndex(
    const LevelVectors& vectors, int levels, const NestedIndexOptions& options,
    std::shared_ptr<const void> owner);

// The same with codes that stay in a file: mapped from `path` (index/nested_store.h) if they are of
// the same origin, width and layout and whole; else made and written there, for the next time.
// `source` says which vectors these are, such as a checkpoint's fingerprint: equal sources must
// mean equal vectors. Parameters and queries are not part of the file.
//
// Errors of BuildNestedIndex alone.
absl::StatusOr<KeptIndex> LoadOrBuildNestedIndex(const LevelVectors& vectors, int levels,
                                                 const NestedIndexOptions& options,
                                                 std::shared_ptr<const void> owner,
                                                 const std::string& path, absl::string_view source);

// Whether there is anything to keep: a narrow width and a small catalogue have no codes.
bool HasNestedCodes(const LevelVectors& vectors, int levels);

}  // namespace nestrec
