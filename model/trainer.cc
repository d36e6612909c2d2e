#include "model/trainer.h"

#include <c10/core/DeviceGuard.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "model/batch_gradients.h"
#include "model/divergence.h"
#include "model/encoder.h"
#include "model/evaluator.h"
#include "model/features.h"
#include "model/model_writer.h"
#include "model/network.h"
#include "model/optimizer.h"
#include "model/replicas.h"
#include "model/scorer.h"
#include "model/torch_device.h"
#include "model/training_inputs.h"
#include "model/training_memory.h"
#include "model/training_state.h"
#include "model/whitening.h"

namespace nestrec {
namespace {

// Streams of the run's random numbers, apart from each other.
constexpr uint64_t kWeightStream = 0;
constexpr uint64_t kShuffleStream = 1 << 20;
constexpr uint64_t kDropoutStream = 2 << 20;

constexpr char kStateSuffix[] = ".state";

constexpr int kRankingCutoff = 1;  // index of 10 in kMetricCutoffs

// Apart from every other stream; rank 0 draws what a single process draws.
uint64_t DropoutStream(int epoch, int rank) {
  return kDropoutStream + static_cast<uint64_t>(epoch) + (static_cast<uint64_t>(rank) << 48);
}

// [rows, columns] on the matrix's own memory.
torch::Tensor TensorOf(Matrix matrix) {
  auto held = std::make_shared<Matrix>(std::move(matrix));
  return torch::from_blob(held->values.data(), {held->rows, held->columns},
                          [held](void*) mutable { held.reset(); });
}

class Run {
 public:
  Run(const Dataset& dataset, const TrainerOptions& options, const TrainingObserver& observer,
      Matrix features, const torch::Device& device)
      : dataset_(dataset),
        options_(options),
        observer_(observer),
        device_(device),
        group_(options.group),
        state_path_(options.output + kStateSuffix),
        identity_(RunIdentity(dataset, options)),
        windows_(MakeTrainingWindows(dataset, options.recipe.max_len, options.recipe.windows)),
        steps_per_epoch_((static_cast<int64_t>(windows_.size()) + options.recipe.batch_size - 1) /
                         options.recipe.batch_size),
        features_(TensorOf(std::move(features))),
        whitening_(options.recipe.feature_scaling == "whiten" && features_.size(1) > 0
                       ? std::make_optional<Whitening>(features_, ModalityWidths(dataset))
                       : std::nullopt),
        network_({.sizes = options.sizes,
                  .blocks = options.recipe.blocks,
                  .max_len = options.recipe.max_len,
                  .feature_width = features_.size(1),
                  .architecture = options.recipe.MakeArchitecture(),
                  .dropout = options.recipe.dropout,
                  .dropout_power = options.recipe.dropout_power,
                  .item_residual = options.recipe.item_residual,
                  .items = dataset.items(),
                  .r_min = options.recipe.r_min,
                  .r_max = options.recipe.r_max,
                  .projector_scale = options.recipe.projector_scale,
                  .branch_scale = options.recipe.branch_scale,
                  .size_weights = options.recipe.NormalisedSizeWeights(),
                  .inverse_temperatures = options.recipe.InverseTemperatures(options.sizes),
                  .distillation = options.recipe.distillation,
                  .precision = options.recipe.precision == Recipe::kBfloat16 ? Precision::kBfloat16
                                                                             : Precision::kFloat32,
                  .device = device,
                  .portable = options.portable},
                 Random(options.recipe.seed, kWeightStream)),
        optimizer_(network_.parameters(), {.weight_decay = options.recipe.weight_decay,
                                           .epsilon = options.recipe.adam_epsilon,
                                           .clip_norm = options.recipe.clip_norm}),
        gradients_(dataset, options, windows_, network_),
        writer_(dataset, options) {
    if (whitening_) whitening_->ApplyTo(features_);
    features_ = features_.to(device);
  }

  absl::StatusOr<TrainingResult> Execute() {
    if (device_.is_cuda()) {
      Note(absl::StrFormat("trains on NVIDIA device %d of this machine", device_.index()));
    }
    if (group_ != nullptr) NESTREC_RETURN_IF_ERROR(AgreeOnStart());
    NESTREC_RETURN_IF_ERROR(StartProjector());
    NESTREC_RETURN_IF_ERROR(Resume());
    while (progress_.epoch < options_.recipe.epochs &&
           progress_.epoch - progress_.best_epoch < options_.recipe.patience) {
      NESTREC_RETURN_IF_ERROR(RunEpoch());
    }
    return Finish();
  }

 private:
  void Note(const std::string& text) {
    if (observer_.on_note) observer_.on_note(text);
  }

  int Rank() const { return group_ == nullptr ? 0 : group_->rank(); }
  size_t Processes() const { return group_ == nullptr ? 1 : static_cast<size_t>(group_->size()); }
  bool ToldToStop() const { return observer_.should_stop && observer_.should_stop(); }

  absl::Status AgreeOnStart() {
    NESTREC_RETURN_IF_ERROR(CheckReplicas(*group_, identity_, network_));
    // Eigenvectors that processors of two kinds compute may differ by more than rounding.
    if (whitening_) {
      NESTREC_RETURN_IF_ERROR(
          group_->Broadcast("whitened features", std::span(&std::as_const(features_), 1)));
    }
    Note(absl::StrFormat("%d processes, each with its share of every batch", group_->size()));
    return absl::OkStatus();
  }

  absl::Status StartProjector() {
    if (options_.recipe.projector_start != Recipe::kPrincipal || features_.size(1) == 0) {
      return absl::OkStatus();
    }
    NESTREC_RETURN_IF_ERROR(Guard("start the projector", [&]() -> absl::Status {
      const Projector start =
          PrincipalProjector(features_.to(torch::kCPU), options_.sizes.max_dim());
      network_.StartProjectorAt(start.weight, start.bias);
      return absl::OkStatus();
    }));
    if (group_ == nullptr) return absl::OkStatus();
    const torch::Tensor parts[] = {network_.parameters().projector.detach(),
                                   network_.parameters().projector_bias.detach()};
    return group_->Broadcast("the projector's start", parts);  // eigenvectors again
  }

  // Goes on from the state file, if it is to; rank 0 alone needs it.
  absl::Status Resume() {
    const bool resumes = options_.resume && Rank() == 0 && FileExists(state_path_);
    if (resumes) {
      NESTREC_ASSIGN_OR_RETURN(progress_,
                               LoadTrainingState(state_path_, identity_, network_, optimizer_));
      if (progress_.best_epoch > 0 && !FileExists(options_.output)) {
        return absl::FailedPreconditionError(
            absl::StrCat(options_.output, " is gone, the checkpoint of epoch ",
                         progress_.best_epoch, ", the best one of the run that ", state_path_,
                         " belongs to; put it back, or --overwrite to start anew"));
      }
      const PartialEpoch& partial = progress_.partial;
      if (partial.steps > 0 && partial.generators.size() != Processes()) {
        return absl::FailedPreconditionError(absl::StrFormat(
            "%s was stopped in the middle of an epoch with %d processes, and cannot go on with %d; "
            "start %d (WORLD_SIZE), or --overwrite to start anew",
            state_path_, partial.generators.size(), Processes(), partial.generators.size()));
      }
      Note(partial.steps > 0 ? absl::StrFormat("resumed in epoch %d after %d of %d steps",
                                               progress_.epoch + 1, partial.steps, steps_per_epoch_)
                             : absl::StrFormat("resumed after epoch %d", progress_.epoch));
      if (!progress_.knows_features) {
        Note(absl::StrCat("warning: ", state_path_,
                          ", of an earlier nestrec, does not say which "
                          "features it was trained on; that they are these is for you to know"));
      }
    }
    if (group_ == nullptr) return absl::OkStatus();
    std::string from_rank_0 = resumes ? "resumes" : "";
    NESTREC_RETURN_IF_ERROR(group_->Broadcast("whether the run resumes", from_rank_0));
    if (from_rank_0.empty()) return absl::OkStatus();
    return ShareTrainingState(*group_, network_, optimizer_, progress_);
  }

  // Rank 0 does `work`; `result` is then known to all.
  absl::Status OnRankZero(absl::string_view what, absl::FunctionRef<absl::Status()> work,
                          double& result) {
    return group_ == nullptr ? work() : group_->OnRankZero(what, work, result);
  }

  absl::Status RunEpoch() {
    const int epoch = progress_.epoch + 1;
    // Both depend on seed, epoch and rank alone, so that a resumed run draws the same numbers.
    torch::manual_seed(Random(options_.recipe.seed, DropoutStream(epoch, Rank())).Next());
    Random(options_.recipe.seed, kShuffleStream + static_cast<uint64_t>(epoch))
        .Shuffle(std::span(Order()));

    PartialEpoch& done = progress_.partial;
    if (done.steps > 0) {
      NESTREC_RETURN_IF_ERROR(Guard("restore the random generator", [&]() -> absl::Status {
        SetGeneratorState(device_, done.generators.at(static_cast<size_t>(Rank())));
        return absl::OkStatus();
      }));
    }
    const absl::Time start = absl::Now() - done.training_time;
    while (done.steps < steps_per_epoch_) {
      // Of several ranks, all stop after the same step: the one that tells them.
      if (group_ == nullptr ? ToldToStop() : stop_agreed_) return Stop(absl::Now() - start);
      NESTREC_ASSIGN_OR_RETURN(const double loss,
                               Guard("training step", [&] { return Step(done); }));
      if (observer_.on_step) {
        const double seconds = std::max(1e-9, absl::ToDoubleSeconds(absl::Now() - start));
        observer_.on_step({.epoch = epoch,
                           .step = done.steps,
                           .steps = steps_per_epoch_,
                           .loss = loss,
                           .positions_per_second = static_cast<double>(done.positions) / seconds,
                           .gflops_per_second = static_cast<double>(done.flops) / seconds / 1e9});
      }
    }
    const absl::Time trained = absl::Now();
    std::vector<SizeMetrics> validation;
    double ndcg = 0;
    const absl::Status validated = OnRankZero(
        "validation",
        [&]() -> absl::Status {
          NESTREC_ASSIGN_OR_RETURN(validation, Guard("validation", [&] { return Validate(); }));
          ndcg = validation.back().metrics.ndcg[kRankingCutoff];
          return absl::OkStatus();
        },
        ndcg);
    if (absl::IsCancelled(validated)) return Stop(trained - start);
    NESTREC_RETURN_IF_ERROR(validated);
    const absl::Time evaluated = absl::Now();

    const PartialEpoch totals = std::exchange(done, PartialEpoch());
    progress_.epoch = epoch;
    progress_.training_time += trained - start;
    const bool best = ndcg > progress_.best_ndcg;
    if (best) {
      progress_.best_ndcg = ndcg;
      progress_.best_epoch = epoch;
      progress_.best_validation = validation;
    }
    if (Rank() != 0) return absl::OkStatus();
    if (best) {
      NESTREC_RETURN_IF_ERROR(Guard("write checkpoint", [&] {
        return writer_.Write(network_, features_, whitening_ ? &*whitening_ : nullptr,
                             progress_.best_validation);
      }));
    }
    NESTREC_RETURN_IF_ERROR(
        SaveTrainingState(state_path_, identity_, progress_, network_, optimizer_));
    if (observer_.on_epoch) {
      observer_.on_epoch(
          {.epoch = epoch,
           .loss = totals.loss / static_cast<double>(steps_per_epoch_),
           .learning_rate = options_.recipe.LearningRateAt(progress_.steps - 1, TotalSteps()),
           .gradient_norm = totals.gradient_norm / static_cast<double>(steps_per_epoch_),
           .positions = totals.positions,
           .flops = static_cast<double>(totals.flops),
           .training_time = trained - start,
           .evaluation_time = evaluated - trained,
           .validation = std::move(validation),
           .best = best,
           .epochs_without_gain = epoch - progress_.best_epoch});
    }
    return absl::OkStatus();
  }

  // Saves the epoch as far as it is.
  absl::Status Stop(absl::Duration training_time) {
    progress_.partial.training_time = training_time;
    if (progress_.partial.steps > 0) {
      NESTREC_ASSIGN_OR_RETURN(
          const std::string generator,
          Guard("save the random generator",
                [this]() -> absl::StatusOr<std::string> { return GeneratorState(device_); }));
      progress_.partial.generators = {generator};
      if (group_ != nullptr) {
        NESTREC_ASSIGN_OR_RETURN(progress_.partial.generators,
                                 group_->Gather("random generators", generator));
      }
      if (Rank() == 0) {
        NESTREC_RETURN_IF_ERROR(
            SaveTrainingState(state_path_, identity_, progress_, network_, optimizer_));
      }
    }
    const std::string where =
        absl::StrFormat("stopped in epoch %d after %d of %d steps", progress_.epoch + 1,
                        progress_.partial.steps, steps_per_epoch_);
    return absl::CancelledError(progress_.steps > 0
                                    ? absl::StrCat(where, "; --resume goes on from there")
                                    : absl::StrCat(where, "; nothing was saved"));
  }

  int64_t TotalSteps() const { return steps_per_epoch_ * options_.recipe.epochs; }

  // The windows in their original order: every epoch's shuffle starts from it.
  std::vector<TrainingWindow>& Order() {
    shuffled_ = windows_;
    return shuffled_;
  }

  // `what` of this step is no number: where it was met first, the likely cause, and what is left of
  // the run.
  absl::Status NotANumber(int64_t step, absl::string_view what, double value) const {
    const std::string& tensor = optimizer_.not_finite();
    return absl::AbortedError(absl::StrFormat(
        "epoch %d, step %d: %s is %s%s; %s. %s", progress_.epoch + 1, step + 1, what,
        std::isnan(value) ? "not a number" : "infinite",
        tensor.empty() ? "" : absl::StrCat(" (the gradient of ", tensor, " is the first such)"),
        CauseOfDivergence(dataset_, options_.recipe),
        progress_.best_epoch > 0
            ? absl::StrFormat("The checkpoint of epoch %d, the best one before, is intact",
                              progress_.best_epoch)
            : "No epoch was finished, and nothing was written"));
  }

  // One step of the epoch, added to what is done of it.
  absl::StatusOr<double> Step(PartialEpoch& done) {
    const size_t begin = static_cast<size_t>(done.steps * options_.recipe.batch_size);
    const size_t count =
        std::min(static_cast<size_t>(options_.recipe.batch_size), shuffled_.size() - begin);
    const auto windows = std::span(shuffled_).subspan(begin, count);
    optimizer_.ZeroGradients();  // frees them before the loss takes its scratch
    NESTREC_ASSIGN_OR_RETURN(const StepTotals totals,
                             gradients_.Compute(windows, features_, progress_.steps, ToldToStop()));
    stop_agreed_ = group_ != nullptr && totals.stop;
    const double value = totals.loss;
    const double norm =
        optimizer_.Step(options_.recipe.LearningRateAt(progress_.steps, TotalSteps()));
    if (!std::isfinite(value) || !std::isfinite(norm)) {
      return std::isfinite(value) ? NotANumber(done.steps, "the gradient norm", norm)
                                  : NotANumber(done.steps, "the loss", value);
    }
    ++progress_.steps;
    ++done.steps;
    done.loss += value;
    done.gradient_norm += norm;
    done.positions += totals.positions;
    done.flops += totals.flops;
    return value;
  }

  absl::StatusOr<std::vector<SizeMetrics>> Validate() {
    const torch::NoGradGuard no_grad;
    std::vector<torch::Tensor> levels;
    const torch::Tensor items = network_.ItemEmbeddings(features_);
    NESTREC_ASSIGN_OR_RETURN(const auto encoder,
                             Encoder::Create(network_.View(items, levels), nullptr));
    NESTREC_ASSIGN_OR_RETURN(Evaluation evaluation, EvaluateSplit(*encoder, Split::kValidation));
    return std::move(evaluation.sizes);
  }

  absl::StatusOr<Evaluation> EvaluateSplit(const Encoder& encoder, Split split) {
    EvaluationOptions evaluation;
    evaluation.split = split;
    evaluation.threads = options_.threads;
    evaluation.progress = [this](int64_t, int64_t) {
      return !ToldToStop() && !stop_agreed_ && !(group_ != nullptr && group_->broken());
    };
    return Evaluate(ModelScorer(&encoder), dataset_, evaluation);
  }

  // Evaluates the best epoch on the test items and stores the result in the checkpoint.
  absl::StatusOr<TrainingResult> Finish() {
    TrainingResult result{.epochs = progress_.epoch,
                          .best_epoch = progress_.best_epoch,
                          .validation = progress_.best_validation,
                          .training_time = progress_.training_time};
    double nothing = 0;
    NESTREC_RETURN_IF_ERROR(OnRankZero(
        "test",
        [&]() -> absl::Status {
          NESTREC_ASSIGN_OR_RETURN(result.test, writer_.Complete(
                                                    [this](const Encoder& encoder) {
                                                      return EvaluateSplit(encoder, Split::kTest);
                                                    },
                                                    progress_.training_time));
          return absl::OkStatus();
        },
        nothing));
    return result;
  }

  const Dataset& dataset_;
  const TrainerOptions& options_;
  const TrainingObserver& observer_;
  const torch::Device device_;
  ProcessGroup* const group_;  // null: alone
  const std::string state_path_;
  const std::string identity_;
  const std::vector<TrainingWindow> windows_;
  std::vector<TrainingWindow> shuffled_;
  const int64_t steps_per_epoch_;
  torch::Tensor features_;  // [items + 1, F], as the network reads them
  const std::optional<Whitening> whitening_;
  Network network_;
  Optimizer optimizer_;
  BatchGradients gradients_;
  TrainingProgress progress_;
  const ModelWriter writer_;
  bool stop_agreed_ = false;  // by all ranks, in the last step
};

}  // namespace

absl::Status CheckOutput(const TrainerOptions& options) {
  NESTREC_RETURN_IF_ERROR(CheckWritable(options.output));
  const std::string state = options.output + kStateSuffix;
  const bool can_resume = options.resume && FileExists(state);
  if (FileExists(options.output) && options.resume && !can_resume) {
    return absl::AlreadyExistsError(
        absl::StrCat(options.output, " exists, but not ", options.output, kStateSuffix,
                     ", which --resume needs; --overwrite starts anew"));
  }
  if (FileExists(options.output) && !options.resume && !options.overwrite) {
    return absl::AlreadyExistsError(
        absl::StrCat(options.output, " exists; --resume goes on with it, --overwrite starts anew"));
  }
  if (FileExists(state) && !options.resume && !options.overwrite) {
    return absl::AlreadyExistsError(absl::StrCat(
        state, ", an unfinished run, exists; --resume goes on with it, --overwrite starts anew"));
  }
  return absl::OkStatus();
}

absl::StatusOr<TrainingResult> Train(const Dataset& dataset, const TrainerOptions& options,
                                     const TrainingObserver& observer) {
  NESTREC_RETURN_IF_ERROR(options.recipe.Check());
  NESTREC_RETURN_IF_ERROR(options.recipe.CheckAgainst(options.sizes));
  if (options.group == nullptr || options.group->rank() == 0) {
    NESTREC_RETURN_IF_ERROR(CheckOutput(options));
  }
  const int local_rank = options.group == nullptr ? 0 : options.group->local_rank();
  NESTREC_RETURN_IF_ERROR(CheckDevice(options.device, local_rank));
  if (options.device == DeviceKind::kCuda && options.recipe.precision == Recipe::kBfloat16) {
    return absl::InvalidArgumentError(absl::StrCat("--precision ", Recipe::kBfloat16,
                                                   ": only with --device cpu; use --precision ",
                                                   Recipe::kFloat32, " with cuda"));
  }
  if (options.device == DeviceKind::kCpu) {
    NESTREC_RETURN_IF_ERROR(
        CheckTrainingMemory(dataset, options.recipe, options.sizes, ReadMemoryLimits()));
  }
  NESTREC_ASSIGN_OR_RETURN(Matrix features, NetworkFeatures(dataset, options.recipe));
  absl::StatusOr<TrainingResult> result = Guard("train", [&]() -> absl::StatusOr<TrainingResult> {
    const int cores = static_cast<int>(std::thread::hardware_concurrency()) /
                      (options.group == nullptr ? 1 : options.group->local_size());
    at::set_num_threads(options.threads > 0 ? options.threads : std::max(1, cores));
    const torch::Device device = TorchDevice(options.device, local_rank);
    // NCCL looks at the current device.
    const c10::OptionalDeviceGuard guard(device.is_cuda() ? c10::optional<torch::Device>(device)
                                                          : c10::nullopt);
    Run run(dataset, options, observer, std::move(features), device);
    return run.Execute();
  });
  if (!result.ok()) return WithMemoryCure(result.status());
  return result;
}

}  // namespace nestrec
