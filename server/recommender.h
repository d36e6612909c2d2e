// From a request's vector to its items, at the width that the policy chose, of those that the
// request's lists and filter allow, held to its caps and made diverse.
//
// Scores are inner products of z[:dim], from the encoder, and the items' vectors cut to dim; an
// empty history's z is the prior that the model learned. For items like another one, z is that
// item's vector, and scores are cosines.
//
// Thread safety: pure; runs on the calling thread.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "index/item_index.h"
#include "server/explain.h"
#include "server/live/item_view.h"
#include "server/policy.h"
#include "server/snapshot.h"
#include "server/validate.h"

namespace nestrec {

struct Recommendation {
  SearchResult result;
  std::shared_ptr<const ItemView> items = {};  // that were searched: the result's numbers are
                                               // theirs; with vector_only the query's
  absl::Duration encode;                       // of the batch that the request was part of
  absl::Duration search;
  std::vector<float> vector = {};  // [dim], with vector_only; then the result is empty
  std::optional<Explanation> explanation = {};
  absl::Duration explain = {};
};

// An item's vector as z [the levels' columns]. REQUIRES: an item of the view.
void CopyItemVector(const Snapshot& snapshot, const ItemView& items, int32_t item, int levels,
                    std::span<float> z);

// What a request is searched by; of one snapshot and kind of search, one index for one width.
const ItemIndex& IndexOf(const Snapshot& snapshot, const RecommendQuery& query,
                         const WidthDecision& width);

// The items of the view for z [width.dim], the query's vector. `query` was validated against this
// view or an earlier one of the snapshot, `width` chosen for its sizes. Errors are ours: kInternal,
// kResourceExhausted.
absl::StatusOr<SearchResult> FindItems(const Snapshot& snapshot, const ItemView& items,
                                       const RecommendQuery& query, const WidthDecision& width,
                                       std::span<const float> z);

// One of several requests for the same index.
struct FindRequest {
  const RecommendQuery* query;
  const WidthDecision* width;
  std::span<const float> z;
};

// The same for each of several requests; those without caps are searched together. REQUIRES: they
// have one IndexOf.
std::vector<absl::StatusOr<SearchResult>> FindItems(const Snapshot& snapshot, const ItemView& items,
                                                    std::span<const FindRequest> requests);

}  // namespace nestrec
