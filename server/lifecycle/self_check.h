// Whether a loaded model computes here what it computed where it was trained.
//
// Thread safety: pure.
#pragma once

#include "absl/status/status.h"
#include "server/log.h"
#include "server/snapshot.h"

namespace nestrec {

// Encodes the users that the checkpoint keeps for this (model/self_check.h) at every size that is
// loaded, scores their items and searches. kDataLoss, naming size and figures, where a score is off
// by more than rounding explains, or where Recall@10 over these users is another one; of a snapshot
// that searches nothing the scores alone. A checkpoint without such users, which older ones and
// unfinished trainings are, is OK with a warning ("self_check_skipped"): nothing is known of it
// then.
absl::Status SelfCheck(const Snapshot& snapshot, const Log& log);

}  // namespace nestrec
