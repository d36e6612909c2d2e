// What an interrupted training run needs to go on: a safetensors file beside the checkpoint,
// written after every epoch, with weights, optimizer, progress and everything that the run depends
// on.
//
// Thread safety: none.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "model/metrics.h"
#include "model/network.h"
#include "model/optimizer.h"

namespace nestrec {

// What was done of an epoch that was stopped before its end.
struct PartialEpoch {
  int64_t steps = 0;  // 0: the epoch was not begun
  double loss = 0;    // sums over the steps
  double gradient_norm = 0;
  int64_t positions = 0;
  int64_t flops = 0;
  absl::Duration training_time;
  // libtorch's random generator on every rank of a data-parallel run: dropout goes on where it was.
  std::vector<std::string> generators;
};

struct TrainingProgress {
  int epoch = 0;  // whole epochs done
  int64_t steps = 0;
  int best_epoch = 0;
  double best_ndcg = -1.0;
  std::vector<SizeMetrics> best_validation;
  absl::Duration training_time;  // of the whole epochs
  PartialEpoch partial;
  bool knows_features = true;  // false: the state it was read from does not say which they were
};

// What the keys of a run's identity that say which features it reads begin with; states that
// nestrec 0.1.0 wrote have none.
inline constexpr absl::string_view kFeaturesOfIdentity = "features ";

// How two runs' identities (JSON objects, see below) differ, key by key: "batch_size: 32 in the
// saved run, 64 now", where `one` and `other` name the runs. Empty when they do not.
std::vector<std::string> IdentityDifferences(const std::string& one_json, absl::string_view one,
                                             const std::string& other_json,
                                             absl::string_view other);

// What must be the same for a resumed run; compared key by key. A JSON object.
absl::Status SaveTrainingState(const std::string& path, const std::string& identity_json,
                               const TrainingProgress& progress, Network& network,
                               const Optimizer& optimizer);

// Fills network and optimizer. kFailedPrecondition, naming each difference, when the state's
// identity is another one; kDataLoss for a damaged file. A state that does not say which features
// its run read is taken: `knows_features` of the progress is then false.
absl::StatusOr<TrainingProgress> LoadTrainingState(const std::string& path,
                                                   const std::string& identity_json,
                                                   Network& network, Optimizer& optimizer);

}  // namespace nestrec
