#include "model/trainer.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "model/checkpoint.h"
#include "model/encoder.h"
#include "model/evaluator.h"
#include "model/features.h"
#include "model/network.h"
#include "model/optimizer.h"
#include "model/scorer.h"
#include "model/training_state.h"
#include "model/whitening.h"

namespace nestrec {
namespace {

using Json = nlohmann::ordered_json;

// Streams of the run's random numbers, apart from each other.
constexpr uint64_t kWeightStream = 0;
constexpr uint64_t kShuffleStream = 1 << 20;
constexpr uint64_t kDropoutStream = 2 << 20;

constexpr char kStateSuffix[] = ".state";

constexpr int kRankingCutoff = 1;  // index of 10 in kMetricCutoffs

absl::Status CheckWhole(absl::string_view flag, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": ", value, " is outside ", low, " to ", high));
}

absl::Status CheckReal(absl::string_view flag, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();  // a NaN is in no range
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: %.12g is outside %.12g to %.12g", flag, value, low, high));
}

// The features' value of the largest size, and where it stands.
struct LargestFeature {
  float value = 0;
  int64_t row = 0, column = 0;
  std::string modality;
};

LargestFeature FindLargestFeature(const Dataset& dataset) {
  LargestFeature largest;
  for (const Modality& modality : dataset.modalities) {
    const std::vector<float>& values = modality.features.values;
    const auto found = std::max_element(values.begin(), values.end(),
                                        [](float a, float b) { return std::abs(a) < std::abs(b); });
    if (found == values.end() || std::abs(*found) <= std::abs(largest.value)) continue;
    const int64_t at = found - values.begin();
    largest = {.value = *found,
               .row = at / modality.features.columns,
               .column = at % modality.features.columns,
               .modality = modality.name};
  }
  return largest;
}

// Linear warm-up to the learning rate, then half a cosine down to 0 at the last of all steps.
double LearningRate(const Recipe& recipe, int64_t step, int64_t total_steps) {
  if (step < recipe.warmup_steps) {
    return recipe.learning_rate * static_cast<double>(step + 1) /
           static_cast<double>(recipe.warmup_steps);
  }
  const double span = static_cast<double>(std::max<int64_t>(1, total_steps - recipe.warmup_steps));
  const double share = std::min(1.0, static_cast<double>(step - recipe.warmup_steps) / span);
  return recipe.learning_rate * 0.5 * (1.0 + std::cos(M_PI * share));
}

std::string IdentityJson(const Dataset& dataset, const TrainerOptions& options) {
  Json json = Json::parse(options.recipe.ToJson());
  json["sizes"] = options.sizes.ToString();
  json["data"] = dataset.fingerprint;
  for (const Modality& modality : dataset.modalities) {
    json[absl::StrCat("modality ", modality.name)] = modality.features.columns;
  }
  return json.dump();
}

std::vector<int64_t> ModalityWidths(const Dataset& dataset) {
  std::vector<int64_t> widths;
  for (const Modality& modality : dataset.modalities) widths.push_back(modality.features.columns);
  return widths;
}

class Run {
 public:
  Run(const Dataset& dataset, const TrainerOptions& options, const TrainingObserver& observer,
      Matrix features)
      : dataset_(dataset),
        options_(options),
        observer_(observer),
        state_path_(options.output + kStateSuffix),
        identity_(IdentityJson(dataset, options)),
        windows_(MakeTrainingWindows(dataset, options.recipe.max_len, options.recipe.windows)),
        steps_per_epoch_((static_cast<int64_t>(windows_.size()) + options.recipe.batch_size - 1) /
                         options.recipe.batch_size),
        features_(
            torch::from_blob(features.values.data(), {features.rows, features.columns}).clone()),
        whitening_(options.recipe.feature_scaling == "whiten"
                       ? std::make_optional<Whitening>(features_, ModalityWidths(dataset))
                       : std::nullopt),
        network_({.sizes = options.sizes,
                  .blocks = options.recipe.blocks,
                  .max_len = options.recipe.max_len,
                  .feature_width = features.columns,
                  .dropout = options.recipe.dropout,
                  .item_residual = options.recipe.item_residual,
                  .items = dataset.items(),
                  .r_min = options.recipe.r_min,
                  .r_max = options.recipe.r_max},
                 Random(options.recipe.seed, kWeightStream)),
        optimizer_(network_.parameters(), {.weight_decay = options.recipe.weight_decay,
                                           .epsilon = options.recipe.adam_epsilon,
                                           .clip_norm = options.recipe.clip_norm}) {
    if (whitening_) features_ = whitening_->Apply(features_);
  }

  absl::StatusOr<TrainingResult> Execute() {
    if (options_.resume && FileExists(state_path_)) {
      NESTREC_ASSIGN_OR_RETURN(progress_,
                               LoadTrainingState(state_path_, identity_, network_, optimizer_));
      Note(absl::StrFormat("resumed after epoch %d", progress_.epoch));
    }
    while (progress_.epoch < options_.recipe.epochs &&
           progress_.epoch - progress_.best_epoch < options_.recipe.patience) {
      NESTREC_RETURN_IF_ERROR(RunEpoch());
    }
    return Finish();
  }

 private:
  struct EpochTotals {
    double loss = 0;
    double gradient_norm = 0;
    int64_t positions = 0;
  };

  void Note(const std::string& text) {
    if (observer_.on_note) observer_.on_note(text);
  }

  absl::Status RunEpoch() {
    const int epoch = progress_.epoch + 1;
    // Both depend on (seed, epoch) alone, so that a resumed run draws the same numbers.
    torch::manual_seed(
        Random(options_.recipe.seed, kDropoutStream + static_cast<uint64_t>(epoch)).Next());
    Random(options_.recipe.seed, kShuffleStream + static_cast<uint64_t>(epoch))
        .Shuffle(std::span(Order()));

    const absl::Time start = absl::Now();
    EpochTotals totals;
    for (int64_t step = 0; step < steps_per_epoch_; ++step) {
      if (observer_.should_stop && observer_.should_stop()) {
        return absl::CancelledError(absl::StrCat(
            "stopped in epoch ", epoch, "; ",
            progress_.epoch > 0 ? absl::StrCat("--resume goes on after epoch ", progress_.epoch)
                                : "no epoch was finished"));
      }
      NESTREC_ASSIGN_OR_RETURN(const double loss,
                               Guard("training step", [&] { return Step(step, totals); }));
      if (observer_.on_step) {
        const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
        observer_.on_step({.epoch = epoch,
                           .step = step + 1,
                           .steps = steps_per_epoch_,
                           .loss = loss,
                           .positions_per_second =
                               seconds > 0 ? static_cast<double>(totals.positions) / seconds : 0});
      }
    }
    const absl::Time trained = absl::Now();
    NESTREC_ASSIGN_OR_RETURN(std::vector<SizeMetrics> validation,
                             Guard("validation", [&] { return Validate(); }));
    const absl::Time evaluated = absl::Now();

    progress_.epoch = epoch;
    progress_.training_time += trained - start;
    const double ndcg = validation.back().metrics.ndcg[kRankingCutoff];
    const bool best = ndcg > progress_.best_ndcg;
    if (best) {
      progress_.best_ndcg = ndcg;
      progress_.best_epoch = epoch;
      progress_.best_validation = validation;
      NESTREC_RETURN_IF_ERROR(Guard("write checkpoint", [&] { return WriteModel(); }));
    }
    NESTREC_RETURN_IF_ERROR(
        SaveTrainingState(state_path_, identity_, progress_, network_, optimizer_));
    if (observer_.on_epoch) {
      observer_.on_epoch(
          {.epoch = epoch,
           .loss = totals.loss / static_cast<double>(steps_per_epoch_),
           .learning_rate = LearningRate(options_.recipe, progress_.steps - 1, TotalSteps()),
           .gradient_norm = totals.gradient_norm / static_cast<double>(steps_per_epoch_),
           .positions = totals.positions,
           .training_time = trained - start,
           .evaluation_time = evaluated - trained,
           .validation = std::move(validation),
           .best = best,
           .epochs_without_gain = epoch - progress_.best_epoch});
    }
    return absl::OkStatus();
  }

  int64_t TotalSteps() const { return steps_per_epoch_ * options_.recipe.epochs; }

  // The windows in their original order: every epoch's shuffle starts from it.
  std::vector<TrainingWindow>& Order() {
    shuffled_ = windows_;
    return shuffled_;
  }

  // `what` of this step is no number: the likely cause, and what is left of the run.
  absl::Status NotANumber(int64_t step, absl::string_view what, double value) const {
    // Encoders give values of about 1; products of far larger ones leave float32 (gradients do from
    // about 1e4 on).
    constexpr float kLargestUsual = 1e3f;
    const LargestFeature largest = FindLargestFeature(dataset_);
    const std::string cause =
        std::abs(largest.value) > kLargestUsual
            ? absl::StrFormat(
                  "the features are too large to train on: row %d (item %d), column %d of %s is "
                  "%g; write them anew with values of about 1%s",
                  largest.row, largest.row + 1, largest.column, largest.modality, largest.value,
                  options_.recipe.feature_scaling == "none"
                      ? ", or try --feature-scaling sqrt_width or whiten"
                      : "")
            : absl::StrFormat(
                  "lower --lr (now %g)%s", options_.recipe.learning_rate,
                  options_.recipe.clip_norm == 0 ? ", or clip gradients (--clip 5)" : "");
    return absl::AbortedError(absl::StrFormat(
        "epoch %d, step %d: %s is %s; %s. %s", progress_.epoch + 1, step + 1, what,
        std::isnan(value) ? "not a number" : "infinite", cause,
        progress_.best_epoch > 0
            ? absl::StrFormat("The checkpoint of epoch %d, the best one before, is intact",
                              progress_.best_epoch)
            : "No epoch was finished, and nothing was written"));
  }

  absl::StatusOr<double> Step(int64_t step, EpochTotals& totals) {
    const size_t begin = static_cast<size_t>(step * options_.recipe.batch_size);
    const size_t count =
        std::min(static_cast<size_t>(options_.recipe.batch_size), shuffled_.size() - begin);
    const PackedBatch batch = PackWindows(dataset_, std::span(shuffled_).subspan(begin, count));
    optimizer_.ZeroGradients();  // frees them before the loss takes its scratch
    const torch::Tensor loss =
        network_.Loss(batch, network_.Forward(batch, features_, /*training=*/true), features_);
    const double value = loss.item<double>();
    loss.backward();
    const double norm =
        optimizer_.Step(LearningRate(options_.recipe, progress_.steps, TotalSteps()));
    if (!std::isfinite(value) || !std::isfinite(norm)) {
      return std::isfinite(value) ? NotANumber(step, "the gradient norm", norm)
                                  : NotANumber(step, "the loss", value);
    }
    ++progress_.steps;
    totals.loss += value;
    totals.gradient_norm += norm;
    totals.positions += batch.positions();
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
    EvaluationOptions evaluation{
        .split = split, .threads = options_.threads, .users_per_chunk = 64, .progress = nullptr};
    evaluation.progress = [this](int64_t, int64_t) {
      return !observer_.should_stop || !observer_.should_stop();
    };
    return Evaluate(ModelScorer(&encoder), dataset_, evaluation);
  }

  absl::StatusOr<std::shared_ptr<const SafetensorsFile>> TextEncoderFile() const {
    const std::string path = dataset_.folder + "/features/text.encoder.safetensors";
    const bool uses_text =
        std::any_of(dataset_.modalities.begin(), dataset_.modalities.end(),
                    [](const Modality& modality) { return modality.name == "text"; });
    if (!uses_text || !FileExists(path)) return std::shared_ptr<const SafetensorsFile>();
    return SafetensorsFile::Open(path, /*require_checksums=*/true);
  }

  ModelInfo Info() const {
    ModelInfo info;
    info.name = options_.name;
    info.max_len = options_.recipe.max_len;
    info.items = dataset_.items();
    info.modalities = DescribeModalities(dataset_, options_.recipe.feature_scaling);
    info.recipe_json = options_.recipe.ToJson();
    info.dataset_fingerprint = dataset_.fingerprint;
    info.created = absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone());
    info.program_version = options_.program_version;
    info.validation = progress_.best_validation;
    return info;
  }

  absl::Status WriteModel() {
    const torch::NoGradGuard no_grad;
    std::vector<torch::Tensor> levels;
    const torch::Tensor items = network_.ItemEmbeddings(features_);
    ModelView view = network_.View(items, levels);
    Whitening::Projector raw;
    if (whitening_) {
      raw = whitening_->Fold(network_.parameters().projector, network_.parameters().projector_bias);
      Network::SetProjector(raw.weight, raw.bias, view);
    }
    NESTREC_ASSIGN_OR_RETURN(const auto text_encoder, TextEncoderFile());
    return WriteCheckpoint(options_.output, view, Info(), *dataset_.catalogue, text_encoder.get())
        .status();
  }

  // Evaluates the best epoch on the test items and stores the result in the checkpoint.
  absl::StatusOr<TrainingResult> Finish() {
    NESTREC_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(options_.output, {}));
    NESTREC_ASSIGN_OR_RETURN(const auto encoder, Encoder::Create(checkpoint->view(), checkpoint));
    NESTREC_ASSIGN_OR_RETURN(Evaluation evaluation, EvaluateSplit(*encoder, Split::kTest));
    ModelInfo info = checkpoint->info();
    info.test = evaluation.sizes;
    NESTREC_ASSIGN_OR_RETURN(const auto text_encoder, TextEncoderFile());
    NESTREC_RETURN_IF_ERROR(WriteCheckpoint(options_.output, checkpoint->view(), info,
                                            *checkpoint->catalogue(), text_encoder.get())
                                .status());
    return TrainingResult{.epochs = progress_.epoch,
                          .best_epoch = progress_.best_epoch,
                          .validation = progress_.best_validation,
                          .test = std::move(evaluation.sizes),
                          .training_time = progress_.training_time};
  }

  const Dataset& dataset_;
  const TrainerOptions& options_;
  const TrainingObserver& observer_;
  const std::string state_path_;
  const std::string identity_;
  const std::vector<TrainingWindow> windows_;
  std::vector<TrainingWindow> shuffled_;
  const int64_t steps_per_epoch_;
  torch::Tensor features_;  // [items + 1, F], as the network reads them
  const std::optional<Whitening> whitening_;
  Network network_;
  Optimizer optimizer_;
  TrainingProgress progress_;
};

}  // namespace

std::string Recipe::ToJson() const {
  Json json;
  json["learning_rate"] = learning_rate;
  json["batch_size"] = batch_size;
  json["max_len"] = max_len;
  json["blocks"] = blocks;
  json["dropout"] = dropout;
  json["weight_decay"] = weight_decay;
  json["adam_epsilon"] = adam_epsilon;
  json["clip_norm"] = clip_norm;
  json["warmup_steps"] = warmup_steps;
  json["epochs"] = epochs;
  json["patience"] = patience;
  json["r_min"] = r_min;
  json["r_max"] = r_max;
  json["windows"] = windows == Windows::kLast ? "last" : "all";
  json["feature_scaling"] = feature_scaling;
  json["item_residual"] = item_residual;
  json["seed"] = seed;
  return json.dump();
}

absl::Status CheckRecipe(const Recipe& recipe) {
  NESTREC_RETURN_IF_ERROR(CheckReal("--lr", recipe.learning_rate, 1e-9, 10));
  NESTREC_RETURN_IF_ERROR(CheckWhole("--batch-size", recipe.batch_size, 1, 1 << 20));
  NESTREC_RETURN_IF_ERROR(CheckWhole("--max-len", recipe.max_len, 1, 100'000));
  NESTREC_RETURN_IF_ERROR(CheckWhole("--blocks", recipe.blocks, 1, 256));
  NESTREC_RETURN_IF_ERROR(CheckReal("--dropout", recipe.dropout, 0, 0.99));
  NESTREC_RETURN_IF_ERROR(CheckReal("--weight-decay", recipe.weight_decay, 0, 10));
  NESTREC_RETURN_IF_ERROR(CheckReal("adam_epsilon", recipe.adam_epsilon, 1e-20, 1));  // no flag
  NESTREC_RETURN_IF_ERROR(CheckReal("--clip", recipe.clip_norm, 0, 1e9));
  NESTREC_RETURN_IF_ERROR(CheckWhole("--warmup-steps", recipe.warmup_steps, 0, 1'000'000'000));
  NESTREC_RETURN_IF_ERROR(CheckWhole("--epochs", recipe.epochs, 1, 1'000'000));
  NESTREC_RETURN_IF_ERROR(CheckWhole("--patience", recipe.patience, 1, 1'000'000));
  NESTREC_RETURN_IF_ERROR(CheckReal("--r-min", recipe.r_min, 0, 0.9999));
  NESTREC_RETURN_IF_ERROR(CheckReal("--r-max", recipe.r_max, 0, 0.99999));
  if (recipe.r_max <= recipe.r_min) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--r-max: %.12g is not above --r-min, %.12g", recipe.r_max, recipe.r_min));
  }
  return CheckFeatureScaling(recipe.feature_scaling);
}

absl::Status CheckOutput(const TrainerOptions& options) {
  NESTREC_RETURN_IF_ERROR(CheckWritable(options.output));
  const bool can_resume = options.resume && FileExists(options.output + kStateSuffix);
  if (FileExists(options.output) && options.resume && !can_resume) {
    return absl::AlreadyExistsError(
        absl::StrCat(options.output, " exists, but not ", options.output, kStateSuffix,
                     ", which --resume needs; --overwrite starts anew"));
  }
  if (FileExists(options.output) && !options.resume && !options.overwrite) {
    return absl::AlreadyExistsError(
        absl::StrCat(options.output, " exists; --resume goes on with it, --overwrite starts anew"));
  }
  return absl::OkStatus();
}

absl::StatusOr<TrainingResult> Train(const Dataset& dataset, const TrainerOptions& options,
                                     const TrainingObserver& observer) {
  NESTREC_RETURN_IF_ERROR(CheckRecipe(options.recipe));
  NESTREC_RETURN_IF_ERROR(CheckOutput(options));
  NESTREC_ASSIGN_OR_RETURN(Matrix features,
                           ConcatenateFeatures(dataset, options.recipe.feature_scaling));
  return Guard("train", [&]() -> absl::StatusOr<TrainingResult> {
    at::set_num_threads(options.threads > 0
                            ? options.threads
                            : static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
    Run run(dataset, options, observer, std::move(features));
    return run.Execute();
  });
}

}  // namespace nestrec
