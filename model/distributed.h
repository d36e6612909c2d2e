// Data-parallel training: a group of processes, on one machine or several, that hold the same
// weights and share every batch. Collectives are those of torch's distributed package: Gloo between
// processors, NCCL between devices where libtorch has it.
//
//   absl::StatusOr<std::unique_ptr<ProcessGroup>> group = ProcessGroup::Join(options);
//   const auto [begin, end] = (*group)->Share(windows);  // of a batch
//   ... gradients of the own share ...
//   NESTREC_RETURN_IF_ERROR((*group)->ReduceStep(parameters, totals));
//
// Collectives: all ranks call the same ones in the same order, and each returns on a rank when that
// rank has its result. One that fails leaves the group of no further use: kUnavailable, naming this
// rank, the collective, the rank that was lost where it can be told, and the cure; within
// GroupOptions::timeout, and at once when a process ended.
//
// Thread safety: none, but for broken().
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/group_options.h"

namespace at {
class Tensor;
}

namespace nestrec {

// What a training step comes to: on one rank, or on all together.
struct StepTotals {
  int64_t labelled = 0;  // positions; what a rank's loss and gradients weigh
  double loss = 0;       // mean over them
  int64_t positions = 0;
  int64_t flops = 0;
  bool stop = false;  // a rank was told to stop
};

class ProcessGroup {
 public:
  // Waits for all the others. REQUIRES: options.size > 1. kUnavailable when the master cannot be
  // reached or a rank does not come, kInvalidArgument when two processes do not fit together, such
  // as two of the same rank; kUnimplemented when nestrec was built without Gloo.
  static absl::StatusOr<std::unique_ptr<ProcessGroup>> Join(const GroupOptions& options);
  ~ProcessGroup();

  int rank() const { return options_.rank; }
  int size() const { return options_.size; }
  int local_rank() const { return options_.local_rank; }
  int local_size() const { return options_.local_size; }
  // Whether a collective has failed.
  bool broken() const { return broken_; }

  // Which [begin, end) of `count` things is this rank's: all shares together cover them, in ranks'
  // order, and differ by at most one. Empty for some when there are fewer things than ranks.
  std::pair<int64_t, int64_t> Share(int64_t count) const;

  // Makes every rank's gradients of `parameters` the mean of all ranks', weighted by
  // totals.labelled, and `totals` those of all ranks together. A parameter without a gradient
  // counts as one of zeros, and stays without one when that is so on every rank. A rank without any
  // labelled position takes part all the same.
  absl::Status ReduceStep(std::span<const at::Tensor> parameters, StepTotals& totals);

  // Rank 0's values on every rank, in place; the shapes agree.
  absl::Status Broadcast(absl::string_view what, std::span<const at::Tensor> tensors);
  // Likewise; of any length.
  absl::Status Broadcast(absl::string_view what, std::string& bytes);
  // Every rank's bytes, in ranks' order, on every rank.
  absl::StatusOr<std::vector<std::string>> Gather(absl::string_view what, const std::string& bytes);

  // Rank 0 does `work` while the others wait, however long it takes; then `result` is rank 0's on
  // every rank. Its error is returned on rank 0; on the others kCancelled where it was that, and
  // else kAborted, pointing to rank 0.
  absl::Status OnRankZero(absl::string_view what, absl::FunctionRef<absl::Status()> work,
                          double& result);

 private:
  struct Connection;

  ProcessGroup(const GroupOptions& options, std::unique_ptr<Connection> connection);
  absl::Status Sum(absl::string_view what, const at::Tensor& tensor);
  absl::Status Sum(absl::string_view what, std::span<double> values);
  absl::Status Collective(absl::string_view what, absl::FunctionRef<void()> run);
  absl::Status SumFlattened(std::span<const at::Tensor> parameters, double weight);

  const GroupOptions options_;
  const std::unique_ptr<Connection> connection_;
  // Relaxed is enough: it is a hint to stop early, what failed comes back as a status.
  std::atomic<bool> broken_ = false;
};

}  // namespace nestrec
