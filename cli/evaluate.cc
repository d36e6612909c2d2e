// nestrec evaluate: metrics of every size of a checkpoint on a data folder, beside the baselines.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/progress_bar.h"
#include "base/status_macros.h"
#include "base/svg_chart.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/metrics_table.h"
#include "model/checkpoint.h"
#include "model/dataset.h"
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
  int threads = 0;
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
  options.split = flags.split == "test" ? Split::kTest : Split::kValidation;
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

absl::Status RunEvaluate(const EvaluateFlags& flags) {
  if (!flags.plot.empty()) NESTREC_RETURN_IF_ERROR(CheckWritable(flags.plot));
  NESTREC_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(flags.model, {}));
  Dataset::Options dataset_options;
  dataset_options.load_features = flags.baselines;
  NESTREC_ASSIGN_OR_RETURN(const auto dataset, Dataset::Load(flags.data, dataset_options));
  if (checkpoint->info().dataset_fingerprint != dataset->fingerprint) {
    if (checkpoint->info().items != dataset->items()) {
      return absl::FailedPreconditionError(absl::StrCat(
          flags.model, " knows ", checkpoint->info().items, " items, but ", flags.data, " has ",
          dataset->items(), "; evaluate on the data that the model was trained on"));
    }
    std::fprintf(stderr,
                 "warning: %s was trained on other data than %s (fingerprints %s and %s): the "
                 "figures mix two splits\n",
                 flags.model.c_str(), flags.data.c_str(),
                 checkpoint->info().dataset_fingerprint.c_str(), dataset->fingerprint.c_str());
  }
  CatchInterrupts();
  NESTREC_ASSIGN_OR_RETURN(const auto encoder, Encoder::Create(checkpoint->view(), checkpoint));
  NESTREC_ASSIGN_OR_RETURN(const Evaluation model,
                           EvaluateScorer(ModelScorer(encoder.get()), *dataset, flags));
  std::vector<Row> rows;
  AddRows(model, "model", flags.mask_seen, rows);
  if (flags.baselines) {
    std::vector<std::unique_ptr<Scorer>> baselines;
    baselines.push_back(std::make_unique<PopularityScorer>(*dataset));
    NESTREC_ASSIGN_OR_RETURN(auto content, ContentNeighbourScorer::Create(*dataset));
    baselines.push_back(std::move(content));
    baselines.push_back(std::make_unique<CoVisitScorer>(*dataset));
    for (const auto& baseline : baselines) {
      NESTREC_ASSIGN_OR_RETURN(const Evaluation evaluation,
                               EvaluateScorer(*baseline, *dataset, flags));
      AddRows(evaluation, baseline->name(), flags.mask_seen, rows);
    }
  }
  if (flags.json) {
    PrintJson(rows, flags);
  } else {
    PrintTable(rows, model, flags);
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
  command->add_flag("--mask-seen", flags->mask_seen,
                    "Leave the history's items out of the ranking (another figure)");
  command->add_flag("--baselines", flags->baselines,
                    "Also popularity and the last item's neighbours");
  command->add_flag("--json", flags->json, "One JSON object per row instead of the table");
  command->add_option("--plot", flags->plot, "Also draw quality against width into this SVG file");
  command->add_option("--threads", flags->threads, "Threads (default: all cores)")
      ->check(CLI::Range(0, 4096));
  command->callback([flags, selected] { *selected = [flags] { return RunEvaluate(*flags); }; });
}

}  // namespace nestrec
