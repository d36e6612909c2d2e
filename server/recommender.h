// From a request's vector to its items, at the width that the policy chose, of those that the
// request's lists and filter allow, held to its caps and made diverse.
//
// Scores are inner products of z[:dim], from the encoder, and the items' vectors cut to dim; an
// empty history's z is the prior that the model learned.
//
// Thread safety: pure; runs on the calling thread.
#pragma once

#include <span>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "index/item_index.h"
#include "server/policy.h"
#include "server/snapshot.h"
#include "server/validate.h"

namespace nestrec {

struct Recommendation {
  SearchResult result;
  absl::Duration encode;  // of the batch that the request was part of
  absl::Duration search;
};

// The items for z [width.dim], the query's vector. `query` was validated against this snapshot's
// catalogue, `width` chosen for its sizes. Errors are ours: kInternal, kResourceExhausted.
absl::StatusOr<SearchResult> FindItems(const Snapshot& snapshot, const RecommendQuery& query,
                                       const WidthDecision& width, std::span<const float> z);

}  // namespace nestrec
