// BatchRecommend: many requests in one call, each on its own way through the engine.
//
// Thread safety: all functions may be called from any thread.
#pragma once

#include "absl/status/status.h"
#include "nestrec/v1/recommend.pb.h"
#include "server/recommend_starter.h"
#include "server/unary_call.h"
#include "server/validate.h"

namespace nestrec {

// kInvalidArgument for a batch that is empty, or larger than the limits allow as a whole. What is
// wrong with a single request is that request's result.
absl::Status CheckBatch(const v1::BatchRecommendRequest& request, const RequestLimits& limits);

// Starts every request; the last one that is done ends `call`. `response` has the results in the
// order of the requests. REQUIRES: CheckBatch is ok; `request` and `response` live as long as the
// call.
void StartBatch(const RecommendStarter& starter, UnaryCall* call,
                const v1::BatchRecommendRequest& request, v1::BatchRecommendResponse* response);

}  // namespace nestrec
