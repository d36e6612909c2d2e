// nestrec train: data folder in, one nested checkpoint out.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/printable.h"
#include "base/progress_bar.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/interrupt.h"
#include "cli/metrics_table.h"
#include "cli/recipe_flags.h"
#include "model/dataset.h"
#include "model/distributed.h"
#include "model/group_options.h"
#include "model/metrics_json.h"
#include "model/trainer.h"

namespace nestrec {
namespace {

constexpr size_t kRankingCutoff = 1;  // @10

struct TrainFlags {
  std::string data;
  std::string output = "model.safetensors";
  std::vector<std::string> modalities;
  std::optional<std::string> sizes;
  int dim = 1024;
  std::string json_path;
  std::string name;
  RecipeFlags recipe;
  bool resume = false;
  bool overwrite = false;
  int threads = 0;
  std::string device = "cpu";
  std::string group_timeout = "10m";
};

// Appends a line per epoch, flushed, so that a killed run leaves a readable log.
class JsonLog {
 public:
  static absl::StatusOr<std::unique_ptr<JsonLog>> Open(const std::string& path, bool append) {
    auto log = std::make_unique<JsonLog>();
    if (path.empty()) return log;
    log->stream_.open(path, append ? std::ios::app : std::ios::trunc);
    if (!log->stream_)
      return absl::PermissionDeniedError(absl::StrCat("--json: cannot write ", path));
    return log;
  }
  void Write(const nlohmann::ordered_json& line) {
    if (stream_.is_open()) stream_ << line.dump() << std::endl;
  }
  // kResourceExhausted when a line was lost.
  absl::Status Check() const {
    if (stream_.good()) return absl::OkStatus();
    return absl::ResourceExhaustedError("--json: the log could not be written completely");
  }

 private:
  std::ofstream stream_;
};

nlohmann::ordered_json EpochJson(const EpochReport& report) {
  nlohmann::ordered_json json;
  json["event"] = "epoch";
  json["epoch"] = report.epoch;
  json["loss"] = report.loss;
  json["learning_rate"] = report.learning_rate;
  json["gradient_norm"] = report.gradient_norm;
  json["positions"] = report.positions;
  json["training_seconds"] = absl::ToDoubleSeconds(report.training_time);
  json["flops"] = report.flops;
  json["evaluation_seconds"] = absl::ToDoubleSeconds(report.evaluation_time);
  json["best"] = report.best;
  json["validation"] = MetricsToJson(report.validation);
  return json;
}

std::string EpochLine(const EpochReport& report) {
  std::string line = absl::StrFormat("epoch %3d  loss %.4f  val N@10", report.epoch, report.loss);
  for (const SizeMetrics& size : report.validation) {
    absl::StrAppendFormat(&line, "  %d:%.4f", size.dim, size.metrics.ndcg[kRankingCutoff]);
  }
  const double seconds = std::max(1e-9, absl::ToDoubleSeconds(report.training_time));
  absl::StrAppendFormat(&line, "  train %s (%.1fk positions/s, %.0f GFLOP/s)  eval %s%s",
                        FormatClock(report.training_time),
                        static_cast<double>(report.positions) / seconds / 1000,
                        report.flops / seconds / 1e9, FormatClock(report.evaluation_time),
                        report.best ? "  best" : "");
  return line;
}

std::string DescribeRun(const Dataset& dataset, const TrainerOptions& options,
                        const std::string& recipe_name) {
  std::vector<std::string> modalities;
  for (const Modality& modality : dataset.modalities) {
    modalities.push_back(absl::StrCat(modality.name, " ", modality.features.columns));
  }
  if (modalities.empty()) modalities.push_back("none");
  const Recipe& recipe = options.recipe;
  const Architecture architecture = recipe.MakeArchitecture();
  return absl::StrFormat(
      "%s: %d users, %d items, %d events, features %s\nsizes %s, recipe %s: %d block%s%s, "
      "batch %d, "
      "lr %g, dropout %g, windows %s, feature scaling %s%s, seed %d",
      options.name, dataset.users(), dataset.items(), dataset.interactions.size(),
      absl::StrJoin(modalities, " + "), options.sizes.ToString(), recipe_name, recipe.blocks,
      recipe.blocks == 1 ? "" : "s",
      architecture == Architecture() ? "" : absl::StrCat(" of ", Describe(architecture)),
      recipe.batch_size, recipe.learning_rate, recipe.dropout,
      recipe.windows == Windows::kLast ? "last" : "all", recipe.feature_scaling,
      recipe.item_residual ? ", item residual" : "", recipe.seed);
}

DeviceKind DeviceOf(const TrainFlags& flags) {
  return flags.device == "cuda" ? DeviceKind::kCuda : DeviceKind::kCpu;
}

// Waits for the other processes that the environment speaks of; null when there are none.
absl::StatusOr<std::unique_ptr<ProcessGroup>> JoinGroup(const TrainFlags& flags) {
  constexpr absl::Duration kLongest = absl::Hours(24);
  absl::Duration timeout;
  if (!absl::ParseDuration(flags.group_timeout, &timeout) || timeout < absl::Seconds(1) ||
      timeout > kLongest) {
    return UsageError(absl::InvalidArgumentError(
        absl::StrCat("--group-timeout: '", flags.group_timeout, "' is not a duration from 1s to ",
                     absl::FormatDuration(kLongest), ", such as 90s or 10m")));
  }
  NESTREC_ASSIGN_OR_RETURN(
      GroupOptions options,
      GroupFromEnvironment([](const char* name) -> const char* { return std::getenv(name); }));
  // Before any waiting.
  NESTREC_RETURN_IF_ERROR(CheckDevice(DeviceOf(flags), options.local_rank));
  if (options.size == 1) return nullptr;
  options.timeout = timeout;
  options.on_cuda = DeviceOf(flags) == DeviceKind::kCuda;
  return ProcessGroup::Join(options);
}

// Says which rank an error is of, where several write to one terminal.
absl::Status OfRank(const ProcessGroup* group, const absl::Status& status) {
  if (group == nullptr || status.ok() || IsUsageError(status) ||
      absl::StartsWith(status.message(), "rank ")) {
    return status;
  }
  return absl::Status(status.code(), absl::StrCat("rank ", group->rank(), " of ", group->size(),
                                                  ": ", status.message()));
}

// A run that ends because of SIGTERM, or because another rank was told to stop, ends well.
absl::Status Stopped(const absl::Status& status) {
  const bool orderly = absl::IsCancelled(status) && (Terminated() || !Interrupted());
  return orderly ? absl::OkStatus() : status;
}

std::string FolderName(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::absolute(path).lexically_normal();
  return Printable(folder.filename().empty() ? folder.parent_path().filename().string()
                                             : folder.filename().string());
}

absl::Status TrainInGroup(const TrainFlags& flags, const NestedSizes& sizes, const Recipe& recipe,
                          ProcessGroup* group) {
  // After the ranks have found each other: who waits for them is stopped at once.
  CatchInterrupts();
  Dataset::Options dataset_options;
  dataset_options.modalities = flags.modalities;
  NESTREC_ASSIGN_OR_RETURN(const auto dataset, Dataset::Load(flags.data, dataset_options));
  if (Interrupted()) {
    const absl::Status stopped =
        absl::CancelledError("stopped while the data was loaded; nothing was written");
    if (Stopped(stopped).ok()) std::printf("%s\n", std::string(stopped.message()).c_str());
    return Stopped(stopped);
  }
  const TrainerOptions options{.sizes = sizes,
                               .recipe = recipe,
                               .name = flags.name.empty() ? FolderName(flags.data) : flags.name,
                               .program_version = kVersion,
                               .output = flags.output,
                               .resume = flags.resume,
                               .overwrite = flags.overwrite,
                               .threads = flags.threads,
                               .device = DeviceOf(flags),
                               .group = group};
  if (group != nullptr && group->rank() != 0) {
    // Rank 0 speaks, writes and evaluates for all.
    TrainingObserver silent;
    silent.should_stop = Interrupted;
    return Stopped(Train(*dataset, options, silent).status());
  }
  // Before the log: a run that is refused must not empty the log of the one before.
  NESTREC_RETURN_IF_ERROR(CheckOutput(options));
  NESTREC_ASSIGN_OR_RETURN(const auto log, JsonLog::Open(flags.json_path, flags.resume));
  std::printf("%s\n", DescribeRun(*dataset, options, flags.recipe.name()).c_str());

  ProgressBar bar(stderr);
  int epoch = 0;
  TrainingObserver observer;
  observer.should_stop = Interrupted;
  observer.on_note = [&](const std::string& note) {
    bar.Clear();
    std::printf("%s\n", note.c_str());
    std::fflush(stdout);
  };
  observer.on_step = [&](const StepReport& report) {
    if (report.epoch != epoch) {
      epoch = report.epoch;
      bar.Start(absl::StrFormat("epoch %d", epoch), report.steps, "epoch's eta");
    }
    bar.Update(report.step,
               absl::StrFormat("loss %.4f  %.1fk positions/s  %.0f GFLOP/s", report.loss,
                               report.positions_per_second / 1000, report.gflops_per_second));
  };
  observer.on_epoch = [&](const EpochReport& report) {
    bar.Clear();
    std::printf("%s\n", EpochLine(report).c_str());
    std::fflush(stdout);
    log->Write(EpochJson(report));
  };
  absl::StatusOr<TrainingResult> result = Train(*dataset, options, observer);
  bar.Clear();
  if (absl::IsCancelled(result.status()) && Stopped(result.status()).ok()) {
    std::printf("%s\n", std::string(result.status().message()).c_str());
    return log->Check();
  }
  NESTREC_RETURN_IF_ERROR(result.status());
  nlohmann::ordered_json json;
  json["event"] = "done";
  json["epochs"] = result->epochs;
  json["best_epoch"] = result->best_epoch;
  json["training_seconds"] = absl::ToDoubleSeconds(result->training_time);
  json["validation"] = MetricsToJson(result->validation);
  json["test"] = MetricsToJson(result->test);
  log->Write(json);
  std::printf(
      "\nbest epoch %d of %d, %s of training; test items, full ranking over %d items:\n%s\nwrote "
      "%s\n",
      result->best_epoch, result->epochs, FormatClock(result->training_time).c_str(),
      static_cast<int>(dataset->items()), FormatMetricsTable("dim", RowsOf(result->test)).c_str(),
      flags.output.c_str());
  return log->Check();
}

absl::Status RunTrain(const TrainFlags& flags) {
  absl::StatusOr<NestedSizes> sizes =
      flags.sizes ? NestedSizes::Parse(*flags.sizes) : NestedSizes::Doubling(flags.dim);
  if (!sizes.ok()) {
    return UsageError(absl::InvalidArgumentError(
        absl::StrCat(flags.sizes ? "--sizes: " : "--dim: ",
                     absl::StripPrefix(sizes.status().message(), "sizes: "))));
  }
  NESTREC_ASSIGN_OR_RETURN(Recipe recipe, flags.recipe.Read());
  if (flags.modalities == std::vector<std::string>{Dataset::kNoFeatures}) {
    recipe = recipe.WithoutFeatures();
  }
  NESTREC_RETURN_IF_ERROR(UsageError(recipe.CheckAgainst(*sizes)));
  NESTREC_RETURN_IF_ERROR(UsageError(CheckText("--name", flags.name)));
  NESTREC_ASSIGN_OR_RETURN(const auto group, JoinGroup(flags));
  return OfRank(group.get(), TrainInGroup(flags, *sizes, recipe, group.get()));
}

}  // namespace

void AddTrainCommand(CLI::App& app, Command* selected) {
  auto flags = std::make_shared<TrainFlags>();
  CLI::App* command = app.add_subcommand("train", "Train a nested model on a data folder");
  command
      ->add_option("--data", flags->data, "Data folder (interactions.txt, items.jsonl, features/)")
      ->envname("NESTREC_DATA")
      ->required();
  command->add_option("-o,--output", flags->output, "Checkpoint to write")->capture_default_str();
  command
      ->add_option("--modalities", flags->modalities,
                   "Features to use, such as text,image (default: all); none: learned item vectors "
                   "alone")
      ->delimiter(',');
  command->add_option("--dim", flags->dim, "Widest size; sizes are 8, 16, 32, ... up to it")
      ->check(WholeNumber(NestedSizes::kMinWidth, NestedSizes::kMaxDim))
      ->capture_default_str();
  command
      ->add_option("--sizes", flags->sizes,
                   "The sizes themselves, such as 8,64,512 (instead of --dim)")
      ->excludes("--dim");
  flags->recipe.AddTo(*command);
  command->add_option("--name", flags->name, "The model's label (default: the data folder's name)");
  command->add_option("--json", flags->json_path, "Also write a JSON line per epoch to this file");
  command->add_option("--threads", flags->threads, "Threads (default: all cores)")
      ->check(CLI::Range(0, 4096));
  command->add_option("--device", flags->device, "Where to compute: cpu, or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  command
      ->add_option("--group-timeout", flags->group_timeout,
                   "With WORLD_SIZE processes: the longest wait for another one")
      ->capture_default_str();
  command->add_flag("--resume", flags->resume, "Go on with an interrupted run");
  command->add_flag("--overwrite", flags->overwrite, "Start anew although the checkpoint exists")
      ->excludes("--resume");
  command->callback([flags, selected] { *selected = [flags] { return RunTrain(*flags); }; });
}

}  // namespace nestrec
