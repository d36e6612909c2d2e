#include "model/batch_gradients.h"

#include "base/random.h"
#include "base/status_macros.h"
#include "model/training_inputs.h"

namespace nestrec {
namespace {

// Apart from the trainer's other streams of random numbers, which are below.
constexpr uint64_t kSampleStream = uint64_t{1} << 32;

}  // namespace

BatchGradients::BatchGradients(const Dataset& dataset, const TrainerOptions& options,
                               const std::vector<TrainingWindow>& windows, Network& network)
    : dataset_(dataset), seed_(options.recipe.seed), group_(options.group), network_(network) {
  if (options.recipe.sampled_items > 0) {
    sampler_.emplace(LabelCounts(dataset, windows), options.recipe.sampled_items);
  }
}

absl::StatusOr<StepTotals> BatchGradients::Compute(std::span<const TrainingWindow> windows,
                                                   const torch::Tensor& features, int64_t step,
                                                   bool told_to_stop) {
  const auto own = OwnShare(windows);
  const PackedBatch batch = PackWindows(dataset_, own);
  std::optional<ItemSample> sample;
  if (sampler_) sample = Sample(windows, own, step);
  StepTotals totals = {
      .labelled = batch.labelled(), .positions = batch.positions(), .stop = told_to_stop};
  if (totals.labelled > 0) {
    const torch::Tensor loss = network_.Loss(
        batch, network_.Forward(batch, features, /*training=*/true), features, sample);
    totals.loss = loss.item<double>();
    loss.backward();
    totals.flops = network_.StepFlops(batch.positions());
  }
  if (group_ != nullptr) {
    std::vector<torch::Tensor> parameters;
    for (const NetworkParameters::Named& parameter : network_.parameters().All()) {
      parameters.push_back(*parameter.tensor);
    }
    NESTREC_RETURN_IF_ERROR(group_->ReduceStep(parameters, totals));
  }
  return totals;
}

// Empty for some ranks where the windows are few.
std::span<const TrainingWindow> BatchGradients::OwnShare(
    std::span<const TrainingWindow> windows) const {
  if (group_ == nullptr) return windows;
  const auto [begin, end] = group_->Share(static_cast<int64_t>(windows.size()));
  return windows.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
}

// Its labels are those of the rank's `own` part of `windows`.
ItemSample BatchGradients::Sample(std::span<const TrainingWindow> windows,
                                  std::span<const TrainingWindow> own, int64_t step) const {
  Random random(seed_, kSampleStream + static_cast<uint64_t>(step));
  const auto before = windows.first(static_cast<size_t>(own.data() - windows.data()));
  const int64_t begin = PackWindows(dataset_, before).labelled();
  const int64_t count = PackWindows(dataset_, own).labelled();
  ItemSample sample = sampler_->Draw(LabelledOf(PackWindows(dataset_, windows)), random);
  sample.labels =
      std::vector<int64_t>(sample.labels.begin() + begin, sample.labels.begin() + begin + count);
  return sample;
}

}  // namespace nestrec
