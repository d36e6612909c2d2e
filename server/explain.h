// Which items of a history made the model return an item: leave-one-out.
//
// The window w of a query is what the model reads of it: the last max_len events of the session's
// kept ones followed by the request's history, oldest first, unknown items left out. What the item
// at place p of it contributed to returned item i at a width is
//
//   score(w, i) - score(w without place p, i)
//
// where score is that of index/score.h for what the encoder makes of the items, each time from the
// start; nothing older moves into the window. Without its last item a window is an empty history.
// Contributions do not add up to the score: items speak for each other.
//
// Costs as encoding n^2 items for a window of n, in parts of a few hundred at a time.
//
// Thread safety: pure; runs on the calling thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "index/item_index.h"
#include "server/live/item_view.h"
#include "server/snapshot.h"
#include "server/validate.h"

namespace nestrec {

struct Explanation {
  std::vector<int32_t> window;       // [n], oldest first
  std::vector<std::string> ids;      // of the window's items
  std::vector<float> contributions;  // [items, n]
};

// REQUIRES: the query's session, if it has one, was read.
std::vector<int32_t> WindowOf(const RecommendQuery& query, int max_len);

// Items to encode for a window of so many.
inline int64_t ExplainRows(int64_t window) { return window * window; }

// What is explained: the window's items are those of `known`, the request's own view, the found
// ones those of `searched`.
struct ExplainedItems {
  const ItemView* known;
  const ItemView* searched;
  std::span<const ScoredItem> found;
};

// Asks `go_on` before every part; its error is returned. Errors of Encoder::Encode.
absl::StatusOr<Explanation> Explain(const Snapshot& snapshot, std::vector<int32_t> window,
                                    int levels, const ExplainedItems& items,
                                    absl::FunctionRef<absl::Status()> go_on);

}  // namespace nestrec
