// From native results to the messages of nestrec.v1.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "nestrec/v1/recommend.pb.h"
#include "server/live/item_view.h"
#include "server/policy.h"
#include "server/recommender.h"
#include "server/snapshot.h"
#include "server/validate.h"

namespace nestrec {

// All but served.timings.total, which the caller knows last.
void FillResponse(const Snapshot& snapshot, const RecommendQuery& query, const WidthDecision& width,
                  const Recommendation& recommendation, absl::Duration queued,
                  v1::RecommendResponse& response);

void FillResponse(const Snapshot& snapshot, const RecommendQuery& query, const WidthDecision& width,
                  const Recommendation& recommendation, absl::Duration queued,
                  v1::SimilarItemsResponse& response);

void FillResponse(const Snapshot& snapshot, const RecommendQuery& query, const WidthDecision& width,
                  const Recommendation& recommendation, absl::Duration queued,
                  v1::EncodeResponse& response);

void FillLiveItems(const ItemView& items, v1::LiveItemCounts& counts);

// `max_k`: the server's limit.
void FillModelInfo(const Snapshot& snapshot, int64_t max_k, v1::GetModelInfoResponse& response);

}  // namespace nestrec
