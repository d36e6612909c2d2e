// The first runs of a model, before any request meets it: memory is touched for the first time, and
// the cost model learns what widths take.
//
// By ThreadClock times are those that the thread runs, so that a priority below that of requests
// does not bend what the model learns.
//
// Thread safety: pure, but for the snapshot's costs(). Runs on a thread of its own, which takes the
// caller's priority, and waits for it.
#pragma once

#include <span>

#include "absl/status/status.h"
#include "server/clock.h"
#include "server/recent_requests.h"
#include "server/snapshot.h"

namespace nestrec {

// Encodes and searches at every width with random histories, and then the `recent` requests, as far
// as the model has their widths and items; both for half a second at most, but every width at least
// once. Errors of Encoder::Encode and FindItems.
absl::Status WarmUp(const Snapshot& snapshot, std::span<const RecentRequests::Request> recent,
                    const Clock& clock);

}  // namespace nestrec
