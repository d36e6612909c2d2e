// nestrec evaluate: metrics of every size of a checkpoint on a data folder, beside the baselines,
// and where a model's quality comes from.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/nested_sizes.h"
#include "base/progress_bar.h"
#include "base/status_macros.h"
#include "base/svg_chart.h"
#include "cli/commands.h"
#include "cli/diagnosis_table.h"
#include "cli/flags.h"
#include "cli/interrupt.h"
#include "cli/metrics_table.h"
#include "model/checkpoint.h"
#include "model/dataset.h"
#include "model/diagnosis.h"
#include "model/encoder.h"
#include "model/evaluator.h"
#include "model/metrics_json.h"
#include "model/scorer.h"

namespace nestrec {
namespace {

struct EvaluateFlags {
  std::string model;
  std::string data;
  std::string split = "test";
  std::string plot;
  bool mask_seen = false;
  bool baselines = false;
  bool json = false;
  bool diagnose = false;
  std::optional<std::string> dims;  // of the diagnosis
  uint64_t seed = 1;                // of its shuffled histories
  int threads = 0;

  Split held_out() const { return split == "test" ? Split::kTest : Split::kValidation; }
};

struct Row {
  std::string scorer;
  SizeMetrics size;
};

// Evaluates one scorer with a progress bar.
absl::StatusOr<Evaluation> EvaluateScorer(const Scorer& scorer, const Dataset& dataset,
                                          const EvaluateFlags& flags) {
  ProgressBar bar(stderr);
  bar.Start(scorer.name(), 1);
  EvaluationOptions options;
  options.split = flags.held_out();
  options.threads = flags.threads;
  bool started = false;
  options.progress = [&](int64_t done, int64_t total) {
    if (!std::exchange(started, true)) bar.Start(scorer.name(), total);
    bar.Update(done, absl::StrCat(done, " users"));
    return !Interrupted();
  };
  return Evaluate(scorer, dataset, options);
}

void AddRows(const Evaluation& evaluation, const std::string& scorer, bool masked,
             std::vector<Row>& rows) {
  for (const SizeMetrics& size : masked ? evaluation.seen_masked : evaluation.sizes)
    rows.push_back({scorer, size});
}

void PrintJson(const std::vector<Row>& rows, const EvaluateFlags& flags) {
  for (const Row& row : rows) {
    nlohmann::ordered_json json;
    json["scorer"] = row.scorer;
    json["split"] = flags.split;
    json["masked"] = flags.mask_seen ? "padding and seen items" : "padding";
    json.update(MetricsToJson(row.size));
    std::printf("%s\n", json.dump().c_str());
  }
}

void PrintTable(const std::vector<Row>& rows, const Evaluation& evaluation,
                const EvaluateFlags& flags) {
  std::vector<MetricsRow> table;
  table.reserve(rows.size());
  for (const Row& row : rows) {
    table.push_back({row.size.dim > 0 ? absl::StrCat(row.size.dim) : row.scorer, row.size.metrics});
  }
  std::printf("%s items, %d users, full ranking, %s masked", flags.split.c_str(),
              static_cast<int>(evaluation.users),
              flags.mask_seen ? "padding and seen items" : "only padding");
  if (evaluation.skipped_users > 0) {
    std::printf(" (%d users with fewer than 3 events left out)",
                static_cast<int>(evaluation.skipped_users));
  }
  std::printf("\n%s", FormatMetricsTable("dim", table).c_str());
}

absl::Status WritePlot(const std::vector<Row>& rows, const EvaluateFlags& flags,
                       const std::string& name) {
  Chart chart{.title = absl::StrCat(name, ": quality by width (", flags.split, " items)"),
              .x_label = "width (dim)",
              .y_label = flags.mask_seen ? "metric, seen items masked" : "metric, full ranking",
              .log2_x = true,
              .series = {{"Recall@10", {}}, {"NDCG@10", {}}}};
  for (const Row& row : rows) {
    if (row.size.dim == 0) continue;
    chart.series[0].points.emplace_back(row.size.dim, row.size.metrics.recall[1]);
    chart.series[1].points.emplace_back(row.size.dim, row.size.metrics.ndcg[1]);
  }
  return WriteFileAtomically(flags.plot, RenderSvg(chart));
}

// A model of other data with as many items can be evaluated, with a warning.
absl::Status CheckData(const Checkpoint& checkpoint, const Dataset& dataset,
                       const EvaluateFlags& flags) {
  const ModelInfo& info = checkpoint.info();
  if (info.dataset_fingerprint == dataset.fingerprint) return absl::OkStatus();
  if (info.items != dataset.items()) {
    return absl::FailedPreconditionError(
        absl::StrCat(flags.model, " knows ", info.items, " items, but ", flags.data, " has ",
                     dataset.items(), "; evaluate on the data that the model was trained on"));
  }
  if (flags.diagnose) return absl::OkStatus();  // Diagnosis::Create refuses it
  std::fprintf(stderr,
               "warning: %s was trained on other data than %s (fingerprints %s and %s): the "
               "figures mix two splits\n",
               flags.model.c_str(), flags.data.c_str(), info.dataset_fingerprint.c_str(),
               dataset.fingerprint.c_str());
  return absl::OkStatus();
}

absl::StatusOr<DiagnosisOptions> DiagnosisOptionsOf(const EvaluateFlags& flags) {
  DiagnosisOptions options{.split = flags.held_out(), .dims = {}, .seed = flags.seed};
  if (!flags.dims) return options;
  const absl::StatusOr<NestedSizes> dims = NestedSizes::Parse(*flags.dims);
  if (!dims.ok()) {
    return UsageError(absl::InvalidArgumentError(
        absl::StrCat("--dims: ", absl::StripPrefix(dims.status().message(), "sizes: "))));
  }
  options.dims = dims->values();
  return options;
}

// The baselines read features, and so does taking one of several modalities out of a model.
bool NeedsFeatures(const ModelInfo& info, const EvaluateFlags& flags) {
  return flags.baselines || (flags.diagnose && info.modalities.size() > 1);
}

absl::Status AddBaselines(const Dataset& dataset, const EvaluateFlags& flags,
                          std::vector<Row>& rows) {
  std::vector<std::unique_ptr<Scorer>> baselines;
  baselines.push_back(std::make_unique<PopularityScorer>(dataset));
  NESTREC_ASSIGN_OR_RETURN(auto content, ContentNeighbourScorer::Create(dataset));
  baselines.push_back(std::move(content));
  baselines.push_back(std::make_unique<CoVisitScorer>(dataset));
  for (const auto& baseline : baselines) {
    NESTREC_ASSIGN_OR_RETURN(const Evaluation evaluation,
                             EvaluateScorer(*baseline, dataset, flags));
    AddRows(evaluation, baseline->name(), flags.mask_seen, rows);
  }
  return absl::OkStatus();
}

absl::Status RunEvaluate(const EvaluateFlags& flags) {
  NESTREC_ASSIGN_OR_RETURN(const DiagnosisOptions diagnosis_options, DiagnosisOptionsOf(flags));
  if (!flags.plot.empty()) NESTREC_RETURN_IF_ERROR(CheckWritable(flags.plot));
  NESTREC_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(flags.model, {}));
  Dataset::Options dataset_options;
  dataset_options.load_features = NeedsFeatures(checkpoint->info(), flags);
  NESTREC_ASSIGN_OR_RETURN(const auto dataset, Dataset::Load(flags.data, dataset_options));
  NESTREC_RETURN_IF_ERROR(CheckData(*checkpoint, *dataset, flags));
  std::optional<Diagnosis> diagnosis;
  if (flags.diagnose) {
    NESTREC_ASSIGN_OR_RETURN(diagnosis, Diagnosis::Create(&checkpoint->view(), &checkpoint->info(),
                                                          dataset.get(), diagnosis_options));
  }
  CatchInterrupts();
  NESTREC_ASSIGN_OR_RETURN(const auto encoder, Encoder::Create(checkpoint->view(), checkpoint));
  NESTREC_ASSIGN_OR_RETURN(const Evaluation model,
                           EvaluateScorer(ModelScorer(encoder.get()), *dataset, flags));
  std::vector<Row> rows;
  AddRows(model, "model", flags.mask_seen, rows);
  if (flags.baselines) NESTREC_RETURN_IF_ERROR(AddBaselines(*dataset, flags, rows));
  std::optional<DiagnosisReport> report;
  if (diagnosis) {
    NESTREC_ASSIGN_OR_RETURN(report, diagnosis->Run(model, [&](const Scorer& scorer) {
      return EvaluateScorer(scorer, *dataset, flags);
    }));
  }
  if (flags.json) {
    PrintJson(rows, flags);
    if (report) std::printf("%s", DiagnosisJsonLines(*report, flags.split).c_str());
  } else {
    PrintTable(rows, model, flags);
    if (report) std::printf("\n%s", FormatDiagnosis(*report).c_str());
  }
  return flags.plot.empty() ? absl::OkStatus() : WritePlot(rows, flags, checkpoint->info().name);
}

}  // namespace

void AddEvaluateCommand(CLI::App& app, Command* selected) {
  auto flags = std::make_shared<EvaluateFlags>();
  CLI::App* command =
      app.add_subcommand("evaluate", "Recall, NDCG and MRR of every size of a checkpoint");
  command->add_option("--model", flags->model, "Checkpoint")->required();
  command->add_option("--data", flags->data, "Data folder")->envname("NESTREC_DATA")->required();
  command->add_option("--split", flags->split, "Which held-out item: val or test")
      ->check(CLI::IsMember({"val", "test"}))
      ->capture_default_str();
  CLI::Option* mask_seen =
      command->add_flag("--mask-seen", flags->mask_seen,
                        "Leave the history's items out of the ranking (another figure)");
  command->add_flag("--baselines", flags->baselines,
                    "Also popularity and the last item's neighbours");
  CLI::Option* diagnose =
      command
          ->add_flag(
              "--diagnose", flags->diagnose,
              "Also by history length and target popularity, with the history changed, and without "
              "each modality")
          ->excludes(mask_seen);
  command
      ->add_option("--dims", flags->dims,
                   "Sizes to diagnose, such as 8,64 (default: narrowest, middle and widest)")
      ->needs(diagnose);
  command->add_option("--seed", flags->seed, "Seed of the shuffled histories of --diagnose")
      ->check(WholeNumber(0, UINT64_MAX))
      ->capture_default_str()
      ->needs(diagnose);
  command->add_flag("--json", flags->json, "One JSON object per row instead of the table");
  command->add_option("--plot", flags->plot, "Also draw quality against width into this SVG file");
  command->add_option("--threads", flags->threads, "Threads (default: all cores)")
      ->check(CLI::Range(0, 4096));
  command->callback([flags, selected] { *selected = [flags] { return RunEvaluate(*flags); }; });
}

}  // namespace nestrec
