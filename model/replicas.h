// Keeps the ranks of a data-parallel run alike: at its start they must hold the same weights for
// the same data and recipe, and a resumed run takes its state from rank 0, which alone needs the
// file.
//
// Collectives: every rank calls them. Errors: those of model/distributed.h, and what is said below.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "model/distributed.h"
#include "model/network.h"
#include "model/optimizer.h"
#include "model/training_state.h"

namespace nestrec {

// kFailedPrecondition on every rank, naming the rank that differs from rank 0 and what differs,
// when `identity_json` (what the run depends on) or a weight does.
absl::Status CheckReplicas(ProcessGroup& group, const std::string& identity_json, Network& network);

// Gives every rank what rank 0 has loaded. Left out is best_validation, which rank 0 alone uses.
absl::Status ShareTrainingState(ProcessGroup& group, Network& network, Optimizer& optimizer,
                                TrainingProgress& progress);

}  // namespace nestrec
