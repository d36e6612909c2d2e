#include "model/replicas.h"

#include <array>
#include <cstring>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/guard.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

constexpr char kStart[] = "comparison of the ranks at the start";
constexpr char kState[] = "rank 0's state of the run";

// Of all weights, as hexadecimal digits.
std::string WeightsChecksum(Network& network) {
  XXH64_hash_t sum = 0;
  for (const NetworkParameters::Named& parameter : network.parameters().All()) {
    const torch::Tensor values = parameter.tensor->detach().to(torch::kCPU).contiguous();
    sum = XXH3_64bits_withSeed(values.data_ptr(), values.nbytes(), sum);
  }
  return absl::StrFormat("%016x", sum);
}

}  // namespace

absl::Status CheckReplicas(ProcessGroup& group, const std::string& identity_json,
                           Network& network) {
  NESTREC_ASSIGN_OR_RETURN(const std::string weights,
                           Guard("sum up the weights", [&]() -> absl::StatusOr<std::string> {
                             return WeightsChecksum(network);
                           }));
  NESTREC_ASSIGN_OR_RETURN(const std::vector<std::string> identities,
                           group.Gather(kStart, identity_json));
  NESTREC_ASSIGN_OR_RETURN(const std::vector<std::string> sums, group.Gather(kStart, weights));
  for (size_t rank = 1; rank < identities.size(); ++rank) {
    const std::vector<std::string> differences = IdentityDifferences(
        identities[0], "on rank 0", identities[rank], absl::StrCat("on rank ", rank));
    if (!differences.empty()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "rank ", rank, " is not set to the run of rank 0 (", absl::StrJoin(differences, "; "),
          "); give all ranks the same flags and the same data"));
    }
    if (sums[rank] != sums[0]) {
      return absl::FailedPreconditionError(absl::StrCat(
          "rank ", rank, " has other weights than rank 0 (checksum ", sums[rank], ", not ", sums[0],
          ") for the same flags and data; run the same build of nestrec on all machines"));
    }
  }
  return absl::OkStatus();
}

absl::Status ShareTrainingState(ProcessGroup& group, Network& network, Optimizer& optimizer,
                                TrainingProgress& progress) {
  std::vector<torch::Tensor> tensors;
  for (const NetworkParameters::Named& parameter : network.parameters().All()) {
    tensors.push_back(parameter.tensor->detach());
  }
  for (const Optimizer::Moment& moment : optimizer.moments()) tensors.push_back(moment.tensor);
  NESTREC_RETURN_IF_ERROR(group.Broadcast(kState, tensors));

  PartialEpoch& partial = progress.partial;
  // Whole numbers of a training run are exact in a double.
  std::array<double, 11> numbers = {static_cast<double>(progress.epoch),
                                    static_cast<double>(progress.steps),
                                    static_cast<double>(optimizer.steps()),
                                    static_cast<double>(progress.best_epoch),
                                    progress.best_ndcg,
                                    absl::ToDoubleSeconds(progress.training_time),
                                    static_cast<double>(partial.steps),
                                    partial.loss,
                                    partial.gradient_norm,
                                    static_cast<double>(partial.positions),
                                    absl::ToDoubleSeconds(partial.training_time)};
  std::string bytes(sizeof(numbers), '\0');
  std::memcpy(bytes.data(), numbers.data(), sizeof(numbers));
  absl::StrAppend(&bytes, absl::string_view(reinterpret_cast<const char*>(&partial.flops),
                                            sizeof(partial.flops)));
  NESTREC_RETURN_IF_ERROR(group.Broadcast(kState, bytes));
  std::memcpy(numbers.data(), bytes.data(), sizeof(numbers));
  std::memcpy(&partial.flops, bytes.data() + sizeof(numbers), sizeof(partial.flops));
  progress.epoch = static_cast<int>(numbers[0]);
  progress.steps = static_cast<int64_t>(numbers[1]);
  optimizer.set_steps(static_cast<int64_t>(numbers[2]));
  progress.best_epoch = static_cast<int>(numbers[3]);
  progress.best_ndcg = numbers[4];
  progress.training_time = absl::Seconds(numbers[5]);
  partial.steps = static_cast<int64_t>(numbers[6]);
  partial.loss = numbers[7];
  partial.gradient_norm = numbers[8];
  partial.positions = static_cast<int64_t>(numbers[9]);
  partial.training_time = absl::Seconds(numbers[10]);
  if (partial.steps == 0) return absl::OkStatus();
  partial.generators.resize(static_cast<size_t>(group.size()));
  for (std::string& generator : partial.generators) {
    NESTREC_RETURN_IF_ERROR(group.Broadcast(kState, generator));
  }
  return absl::OkStatus();
}

}  // namespace nestrec
