// UpsertItems and RemoveItems: from the requests as they came to what LiveItems takes, and back.
//
// Thread safety: pure functions, but for what LiveItems does.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nestrec/v1/recommend.pb.h"
#include "server/live/live_items.h"
#include "server/snapshot.h"
#include "server/validate.h"

namespace nestrec {

// kFailedPrecondition for a server that takes no items.
absl::Status NoLiveItemsError();

// kInvalidArgument with a violation for what is wrong with an item, of the first ten bad ones.
absl::StatusOr<std::vector<LiveItems::Upserted>> ValidateUpsert(
    const v1::UpsertItemsRequest& request, const RequestLimits& limits);
absl::Status ValidateRemove(const v1::RemoveItemsRequest& request, const RequestLimits& limits);

// Errors of LiveItems::Upsert, with violations for the items that the model cannot use.
absl::Status UpsertItems(LiveItems& live, std::vector<LiveItems::Upserted> items,
                         const Snapshot& snapshot, v1::UpsertItemsResponse& response);
absl::Status RemoveItems(LiveItems& live, const std::vector<std::string>& ids, bool restore,
                         const Snapshot& snapshot, v1::RemoveItemsResponse& response);

}  // namespace nestrec
