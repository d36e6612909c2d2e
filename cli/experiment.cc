// nestrec experiment: one question, the training runs that answer it, a table and a plot.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/progress_bar.h"
#include "base/status_macros.h"
#include "base/svg_chart.h"
#include "base/version.h"
#include "cli/commands.h"
#include "cli/experiments.h"
#include "cli/flags.h"
#include "cli/interrupt.h"
#include "cli/recipe_flags.h"
#include "model/checkpoint.h"
#include "model/dataset.h"
#include "model/encoder.h"
#include "model/evaluator.h"
#include "model/mean_scorer.h"
#include "model/metrics_json.h"
#include "model/scorer.h"
#include "model/thinned_dataset.h"
#include "model/trainer.h"

namespace nestrec {
namespace {

constexpr size_t kCutoff = 1;  // @10

struct ExperimentFlags {
  std::string name;
  std::string data;
  std::string output = "experiments";
  int dim = 64;
  int threads = 0;
  bool list = false;
  RecipeFlags recipe;
};

// What is known of a variant once it is trained.
struct Outcome {
  ExperimentVariant variant;
  std::vector<SizeMetrics> test;
  int64_t network_bytes = 0;     // of the blocks' weights at the widest size
  int64_t activation_bytes = 0;  // see ActivationBytes
  double training_seconds = 0;   // without evaluation; 0: not known
};

// "dim 8 alone" -> "dim-8-alone".
std::string FileName(const std::string& label) {
  std::string name;
  for (const char c : label) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_') {
      name += c;
    } else if (!name.empty() && name.back() != '-') {
      name += '-';
    }
  }
  return std::string(absl::StripSuffix(name, "-"));
}

// What was other of the features when the model was trained; empty: nothing that is known.
std::string ChangedFeatures(const ModelInfo& info, const Dataset& dataset) {
  if (info.modalities.size() != dataset.modalities.size()) return "another number of modalities";
  for (const Modality& modality : dataset.modalities) {
    const auto trained =
        std::find_if(info.modalities.begin(), info.modalities.end(),
                     [&](const ModalityInfo& other) { return other.name == modality.name; });
    const bool same = trained != info.modalities.end() &&
                      trained->width == modality.features.columns &&
                      (trained->fingerprint.empty() ||
                       trained->fingerprint == FeaturesFingerprint(modality.features));
    if (!same) return absl::StrCat("other features of ", modality.name);
  }
  return "";
}

// A finished run of the same variant on the same data; null when there is none. Anything else of
// that name is refused. Models of nestrec 0.1.0 do not say which features they were trained on:
// those of the same width are taken.
absl::StatusOr<std::shared_ptr<const Checkpoint>> Finished(const std::string& path,
                                                           const ExperimentVariant& variant,
                                                           const Dataset& dataset) {
  if (!FileExists(path)) return nullptr;
  NESTREC_ASSIGN_OR_RETURN(auto checkpoint, Checkpoint::Open(path, {}));
  const ModelInfo& info = checkpoint->info();
  const auto recipe = nlohmann::ordered_json::parse(info.recipe_json, nullptr, false);
  const auto asked = nlohmann::ordered_json::parse(variant.recipe.ToJson(), nullptr, false);
  if (recipe != asked || !(checkpoint->sizes() == variant.sizes) ||
      info.dataset_fingerprint != dataset.fingerprint) {
    return absl::AlreadyExistsError(
        absl::StrCat(path,
                     " is of another recipe or other data; remove it, or choose another "
                     "--output"));
  }
  if (const std::string changed = ChangedFeatures(info, dataset); !changed.empty()) {
    return absl::AlreadyExistsError(
        absl::StrCat(path, " was trained on ", changed, "; remove it, or choose another --output"));
  }
  if (info.test.empty()) return nullptr;  // the state file beside it goes on
  return checkpoint;
}

absl::Status TrainVariant(const ExperimentVariant& variant, const Dataset& dataset,
                          const std::string& path, int threads) {
  ProgressBar bar(stderr);
  int epoch = 0;
  TrainingObserver observer;
  observer.should_stop = Interrupted;
  observer.on_step = [&](const StepReport& report) {
    if (report.epoch != epoch) {
      epoch = report.epoch;
      bar.Start(absl::StrFormat("%s, epoch %d", variant.label, epoch), report.steps);
    }
    bar.Update(report.step, absl::StrFormat("loss %.4f", report.loss));
  };
  observer.on_epoch = [&](const EpochReport& report) {
    bar.Clear();
    std::printf("  epoch %d: loss %.4f, val NDCG@10 %.4f, %s\n", report.epoch, report.loss,
                report.validation.back().metrics.ndcg[kCutoff],
                FormatClock(report.training_time).c_str());
    std::fflush(stdout);
  };
  const absl::Status status = Train(dataset,
                                    {.sizes = variant.sizes,
                                     .recipe = variant.recipe,
                                     .name = variant.label,
                                     .program_version = kVersion,
                                     .output = path,
                                     .resume = true,
                                     .threads = threads},
                                    observer)
                                  .status();
  bar.Clear();
  NESTREC_RETURN_IF_ERROR(status);
  std::error_code ignored;  // what is left of the state only takes space
  std::filesystem::remove(path + ".state", ignored);
  return absl::OkStatus();
}

// What the layers put out for one position at the widest size, as float32 and without the scores of
// the items: the input; per block two norms, what the mixer's layers and state are, two sums and
// the feed-forward's layers. By count, not measured.
int64_t ActivationBytes(const ExperimentVariant& variant) {
  const Architecture architecture = variant.recipe.MakeArchitecture();
  const auto of_mixer = [&]() -> int64_t {
    switch (architecture.mixer) {
      case Mixer::kLru:
        return 5;  // Re and Im of the input and of the state, the output
      case Mixer::kGru:
        return 8;  // three of the input, three of the state, the state, the output
      case Mixer::kAttention:
        return 5;  // q, k, v, what is attended to, the output
    }
    return 0;
  };
  const int64_t of_feed_forward = architecture.feed_forward == FeedForward::kGated ? 4 : 3;
  const int64_t vectors = 1 + variant.recipe.blocks * (2 + of_mixer() + 2 + of_feed_forward);
  return vectors * variant.sizes.max_dim() * static_cast<int64_t>(sizeof(float));
}

std::string PathOf(const ExperimentVariant& variant, const std::string& folder) {
  return absl::StrCat(folder, "/", FileName(variant.label), ".safetensors");
}

// The test metrics of the mean of what earlier variants score.
absl::StatusOr<Outcome> MeanOf(const ExperimentVariant& variant,
                               const std::vector<Outcome>& earlier, const ExperimentFlags& flags,
                               const std::string& folder) {
  std::printf("%s\n", variant.label.c_str());
  std::fflush(stdout);
  Outcome outcome{.variant = variant, .test = {}};
  std::vector<std::unique_ptr<const Encoder>> encoders;
  std::vector<std::unique_ptr<const Scorer>> scorers;
  for (const size_t i : variant.mean_of) {
    NESTREC_ASSIGN_OR_RETURN(const auto checkpoint,
                             Checkpoint::Open(PathOf(earlier[i].variant, folder), {}));
    NESTREC_ASSIGN_OR_RETURN(auto encoder, Encoder::Create(checkpoint->view(), checkpoint));
    encoders.push_back(std::move(encoder));
    scorers.push_back(std::make_unique<ModelScorer>(encoders.back().get()));
    outcome.network_bytes += earlier[i].network_bytes;
    outcome.activation_bytes += earlier[i].activation_bytes;
    outcome.training_seconds += earlier[i].training_seconds;
  }
  NESTREC_ASSIGN_OR_RETURN(const auto mean, MeanScorer::Create(std::move(scorers)));
  NESTREC_ASSIGN_OR_RETURN(const auto dataset, Dataset::Load(flags.data, {.load_features = false}));
  NESTREC_ASSIGN_OR_RETURN(
      Evaluation evaluation,
      Evaluate(*mean, *dataset,
               {.split = Split::kTest, .threads = flags.threads, .progress = [](int64_t, int64_t) {
                  return !Interrupted();
                }}));
  outcome.test = std::move(evaluation.sizes);
  return outcome;
}

absl::StatusOr<Outcome> RunVariant(const ExperimentVariant& variant, const ExperimentFlags& flags,
                                   const std::string& folder) {
  Dataset::Options options;
  options.modalities = variant.modalities;
  NESTREC_ASSIGN_OR_RETURN(std::shared_ptr<const Dataset> dataset,
                           Dataset::Load(flags.data, options));
  if (variant.density < 1) {
    dataset = ThinnedDataset(*dataset, variant.density, variant.recipe.seed);
  }
  const std::string path = PathOf(variant, folder);
  std::printf("%s\n", variant.label.c_str());
  std::fflush(stdout);
  NESTREC_ASSIGN_OR_RETURN(auto checkpoint, Finished(path, variant, *dataset));
  if (checkpoint == nullptr) {
    NESTREC_RETURN_IF_ERROR(TrainVariant(variant, *dataset, path, flags.threads));
    NESTREC_ASSIGN_OR_RETURN(checkpoint, Checkpoint::Open(path, {}));
  } else {
    std::printf("  done before: %s\n", path.c_str());
  }
  Outcome outcome{.variant = variant,
                  .test = checkpoint->info().test,
                  .activation_bytes = ActivationBytes(variant),
                  .training_seconds = checkpoint->info().training_seconds};
  for (const TensorInfo& tensor : checkpoint->file().tensors()) {
    if (absl::StartsWith(tensor.name, "block.")) {
      outcome.network_bytes += static_cast<int64_t>(tensor.size_bytes);
    }
  }
  return outcome;
}

// Every width that a variant has.
std::vector<int> Dims(const std::vector<Outcome>& outcomes) {
  std::set<int> dims;
  for (const Outcome& outcome : outcomes) {
    for (const SizeMetrics& size : outcome.test) dims.insert(size.dim);
  }
  return {dims.begin(), dims.end()};
}

const RankingMetrics* MetricsAt(const Outcome& outcome, int dim) {
  for (const SizeMetrics& size : outcome.test) {
    if (size.dim == dim) return &size.metrics;
  }
  return nullptr;
}

// Markdown: a row per variant, Recall@10 and NDCG@10 at every width.
std::string Table(const Experiment& experiment, const std::vector<Outcome>& outcomes) {
  const std::vector<int> dims = Dims(outcomes);
  std::string table = absl::StrCat(
      "| ", experiment.name, " | ",
      absl::StrJoin(dims, " | ",
                    [](std::string* out, int dim) { absl::StrAppend(out, "R:", dim); }),
      " | ",
      absl::StrJoin(dims, " | ",
                    [](std::string* out, int dim) { absl::StrAppend(out, "N:", dim); }),
      " | blocks' KiB |\n|---|");
  for (size_t i = 0; i < 2 * dims.size() + 1; ++i) table += "---|";
  table += "\n";
  for (const Outcome& outcome : outcomes) {
    absl::StrAppend(&table, "| ", outcome.variant.label, " |");
    for (const bool recall : {true, false}) {
      for (const int dim : dims) {
        const RankingMetrics* metrics = MetricsAt(outcome, dim);
        if (metrics == nullptr) {
          table += " |";
        } else {
          absl::StrAppendFormat(&table, " %.4f |",
                                recall ? metrics->recall[kCutoff] : metrics->ndcg[kCutoff]);
        }
      }
    }
    absl::StrAppendFormat(&table, " %.0f |\n", static_cast<double>(outcome.network_bytes) / 1024);
  }
  return table;
}

Chart Plot(const Experiment& experiment, const std::vector<Outcome>& outcomes) {
  Chart chart{.title = experiment.question, .x_label = "", .y_label = "test NDCG@10", .series = {}};
  chart.log2_x = true;
  if (experiment.x_label.empty()) {
    chart.x_label = "width (dim)";
    for (const Outcome& outcome : outcomes) {
      const ExperimentVariant& variant = outcome.variant;
      const std::string& line = variant.line.empty() ? variant.label : variant.line;
      auto series =
          std::find_if(chart.series.begin(), chart.series.end(),
                       [&](const ChartSeries& candidate) { return candidate.label == line; });
      if (series == chart.series.end()) {
        series = chart.series.insert(series, {.label = line, .points = {}});
      }
      for (const SizeMetrics& size : outcome.test) {
        series->points.emplace_back(size.dim, size.metrics.ndcg[kCutoff]);
      }
    }
    return chart;
  }
  chart.x_label = experiment.x_label;
  for (const int dim : Dims(outcomes)) {
    ChartSeries series{.label = absl::StrCat("dim ", dim), .points = {}};
    for (const Outcome& outcome : outcomes) {
      const RankingMetrics* metrics = MetricsAt(outcome, dim);
      if (metrics != nullptr) {
        series.points.emplace_back(outcome.variant.x, metrics->ndcg[kCutoff]);
      }
    }
    chart.series.push_back(std::move(series));
  }
  return chart;
}

absl::Status WriteResults(const Experiment& experiment, const std::vector<Outcome>& outcomes,
                          const std::string& folder) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const Outcome& outcome : outcomes) {
    using Json = nlohmann::ordered_json;
    Json row;
    row["experiment"] = experiment.name;
    row["variant"] = outcome.variant.label;
    row["network_bytes"] = outcome.network_bytes;
    row["activation_bytes"] = outcome.activation_bytes;
    // null: a model of nestrec 0.1.0, which does not say.
    row["training_seconds"] =
        outcome.training_seconds > 0 ? Json(outcome.training_seconds) : Json();
    row["recipe"] = nlohmann::ordered_json::parse(outcome.variant.recipe.ToJson(), nullptr, false);
    row["test"] = MetricsToJson(outcome.test);
    rows.push_back(std::move(row));
  }
  NESTREC_RETURN_IF_ERROR(
      WriteFileAtomically(absl::StrCat(folder, "/results.json"), rows.dump(1) + "\n"));
  NESTREC_RETURN_IF_ERROR(
      WriteFileAtomically(absl::StrCat(folder, "/results.md"), Table(experiment, outcomes)));
  return WriteFileAtomically(absl::StrCat(folder, "/results.svg"),
                             RenderSvg(Plot(experiment, outcomes)));
}

absl::Status RunExperiment(const ExperimentFlags& flags) {
  if (flags.list) {
    for (const auto& [name, question] : ExperimentQuestions()) {
      std::printf("%-12s %s\n", name.c_str(), question.c_str());
    }
    return absl::OkStatus();
  }
  if (flags.name.empty() || flags.data.empty()) {
    return UsageError(absl::InvalidArgumentError(
        flags.name.empty() ? "NAME: which experiment? --list shows them"
                           : "--data: is needed, a data folder; or set NESTREC_DATA"));
  }
  absl::StatusOr<NestedSizes> sizes = NestedSizes::Doubling(flags.dim);
  if (!sizes.ok()) {
    return UsageError(absl::InvalidArgumentError(
        absl::StrCat("--dim: ", absl::StripPrefix(sizes.status().message(), "sizes: "))));
  }
  NESTREC_ASSIGN_OR_RETURN(const Recipe recipe, flags.recipe.Read());
  NESTREC_RETURN_IF_ERROR(UsageError(recipe.CheckAgainst(*sizes)));
  NESTREC_ASSIGN_OR_RETURN(const auto dataset, Dataset::Load(flags.data, {}));
  ExperimentBase base{
      .sizes = *sizes, .recipe = recipe, .modalities = {}, .items = dataset->items()};
  for (const Modality& modality : dataset->modalities) base.modalities.push_back(modality.name);
  absl::StatusOr<Experiment> experiment = MakeExperiment(flags.name, base);
  if (absl::IsInvalidArgument(experiment.status())) return UsageError(experiment.status());
  NESTREC_RETURN_IF_ERROR(experiment.status());

  const std::string folder = absl::StrCat(flags.output, "/", experiment->name);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return absl::PermissionDeniedError(
        absl::StrCat("--output: cannot make ", folder, ": ", error.message()));
  }
  CatchInterrupts();
  std::printf("%s\n", experiment->question.c_str());
  std::vector<Outcome> outcomes;
  for (const ExperimentVariant& variant : experiment->variants) {
    NESTREC_ASSIGN_OR_RETURN(Outcome outcome, variant.mean_of.empty()
                                                  ? RunVariant(variant, flags, folder)
                                                  : MeanOf(variant, outcomes, flags, folder));
    outcomes.push_back(std::move(outcome));
    // After every variant, so that a long experiment shows what it has.
    NESTREC_RETURN_IF_ERROR(WriteResults(*experiment, outcomes, folder));
  }
  std::printf("\n%s\nwrote %s/results.md, .json and .svg\n", Table(*experiment, outcomes).c_str(),
              folder.c_str());
  return absl::OkStatus();
}

}  // namespace

void AddExperimentCommand(CLI::App& app, Command* selected) {
  auto flags = std::make_shared<ExperimentFlags>();
  CLI::App* command =
      app.add_subcommand("experiment", "Train the variants that answer a question, and compare");
  command->add_option("name", flags->name, "Which experiment; --list shows them")
      ->option_text("NAME");
  command->add_flag("--list", flags->list, "Show the experiments");
  command->add_option("--data", flags->data, "Data folder")->envname("NESTREC_DATA");
  command
      ->add_option("-o,--output", flags->output,
                   "Folder for models and results; runs that are done there are not done again")
      ->capture_default_str();
  command->add_option("--dim", flags->dim, "Widest size; sizes are 8, 16, 32, ... up to it")
      ->check(WholeNumber(NestedSizes::kMinWidth, NestedSizes::kMaxDim))
      ->capture_default_str();
  command->add_option("--threads", flags->threads, "Threads (default: all cores)")
      ->check(CLI::Range(0, 4096));
  flags->recipe.AddTo(*command);
  command->callback([flags, selected] { *selected = [flags] { return RunExperiment(*flags); }; });
}

}  // namespace nestrec
