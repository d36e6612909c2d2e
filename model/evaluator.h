// Full-ranking leave-one-out evaluation (arXiv 2409.16627, section 4.1): the target is ranked among
// ALL items of the catalogue by score; only the padding item is masked. Ties are broken by item
// number, lower first.
//
// "Seen items masked" is a second figure and never mixed with the first: items of the user's
// history are taken out of the ranking; a target that is itself in the history cannot be
// recommended then and counts as not found.
//
// Thread safety: Evaluate is a pure function and uses its own threads.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "model/dataset.h"
#include "model/metrics.h"
#include "model/scorer.h"
#include "model/split.h"

namespace nestrec {

struct EvaluationOptions {
  Split split = Split::kValidation;
  int threads = 0;  // 0: all cores
  // Ranked together by a thread. Working memory: the encoder's for so many histories; and, but for
  // a model's scorer, users * (items + 1) floats.
  int64_t users_per_chunk = 96;
  // Called from one thread at a time with the users done and to do; returning false stops with
  // kCancelled.
  std::function<bool(int64_t done, int64_t total)> progress;
};

struct Evaluation {
  int64_t users = 0;                     // with at least 3 events
  int64_t skipped_users = 0;             // with fewer
  std::vector<SizeMetrics> sizes;        // per size of the scorer; only padding masked
  std::vector<SizeMetrics> seen_masked;  // the same with the history's items masked
  std::vector<std::vector<int64_t>>
      ranks;  // [size][user]: 1-based rank, only padding masked, in users' order
};

// kFailedPrecondition when no user has 3 events; kInternal for a score of the target that is not a
// number; kInvalidArgument when the scorer knows another number of items than the data has.
absl::StatusOr<Evaluation> Evaluate(const Scorer& scorer, const Dataset& dataset,
                                    const EvaluationOptions& options);

}  // namespace nestrec
