// nestrec export: the first levels of a checkpoint as a checkpoint of their own, its item vectors
// for another engine, or the events of a server's request log as raw events.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/nested_sizes.h"
#include "base/progress_bar.h"
#include "base/status_macros.h"
#include "cli/commands.h"
#include "cli/embedding_export.h"
#include "cli/event_export.h"
#include "cli/flags.h"
#include "model/checkpoint.h"

namespace nestrec {
namespace {

struct ExportFlags {
  std::vector<std::string> events;
  std::string model;
  std::string output;
  int dim = 0;
  bool embeddings = false;
  bool overwrite = false;
};

// Whether `path` can be written, as far as that is known beforehand.
absl::Status CheckOutput(const std::string& path, bool overwrite) {
  NESTREC_RETURN_IF_ERROR(CheckWritable(path));
  if (FileExists(path) && !overwrite) {
    return absl::AlreadyExistsError(absl::StrCat(path, " exists; --overwrite replaces it"));
  }
  return absl::OkStatus();
}

absl::Status RunEventExport(const ExportFlags& flags) {
  NESTREC_ASSIGN_OR_RETURN(const EventExport done, ExportEvents(flags.events, flags.output));
  std::printf("wrote %s: %lld events of %lld users\n", flags.output.c_str(),
              static_cast<long long>(done.events), static_cast<long long>(done.users));
  if (done.forgotten > 0) {
    std::printf("left out: %lld events of users that were forgotten\n",
                static_cast<long long>(done.forgotten));
  }
  if (done.bad_lines > 0) {
    std::printf("left out: %lld lines that are no records\n",
                static_cast<long long>(done.bad_lines));
  }
  std::printf("next: nestrec prepare --events %s\n", flags.output.c_str());
  return absl::OkStatus();
}

absl::Status RunEmbeddingExport(const ExportFlags& flags) {
  const absl::StatusOr<std::vector<std::string>> files = EmbeddingFiles(flags.output);
  NESTREC_RETURN_IF_ERROR(UsageError(files.status()));
  for (const std::string& file : *files) {
    NESTREC_RETURN_IF_ERROR(CheckOutput(file, flags.overwrite));
  }
  NESTREC_ASSIGN_OR_RETURN(const auto checkpoint,
                           Checkpoint::Open(flags.model, {.max_dim = flags.dim}));
  const int64_t items = checkpoint->info().items;
  ProgressBar progress(stderr);
  progress.Start("vectors", items);
  NESTREC_RETURN_IF_ERROR(ExportEmbeddings(*checkpoint, flags.output,
                                           [&](int64_t done) { progress.Update(done, ""); }));
  progress.Clear();
  for (const std::string& file : *files) {
    std::printf("wrote %s: %lld %s\n", file.c_str(), static_cast<long long>(items),
                &file == &files->front()
                    ? absl::StrCat("vectors of ", checkpoint->sizes().max_dim(),
                                   " columns, model version ", checkpoint->info().version)
                          .c_str()
                    : "ids");
  }
  return absl::OkStatus();
}

absl::Status RunExport(const ExportFlags& flags) {
  if (flags.events.empty() && (flags.model.empty() || flags.dim == 0)) {
    return UsageError(absl::InvalidArgumentError(
        "give --model and --dim for a narrow model or, with --embeddings, its item vectors; or "
        "--events for events"));
  }
  if (flags.embeddings) return RunEmbeddingExport(flags);
  NESTREC_RETURN_IF_ERROR(CheckOutput(flags.output, flags.overwrite));
  if (!flags.events.empty()) return RunEventExport(flags);
  NESTREC_ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(flags.model, {}));
  NESTREC_ASSIGN_OR_RETURN(const int levels, checkpoint->sizes().LevelsOf(flags.dim));
  NESTREC_RETURN_IF_ERROR(checkpoint->Export(levels, flags.output));
  std::printf("wrote %s: sizes %s of %s\n", flags.output.c_str(),
              checkpoint->sizes().Prefix(levels).ToString().c_str(),
              checkpoint->sizes().ToString().c_str());
  return absl::OkStatus();
}

}  // namespace

void AddExportCommand(CLI::App& app, Command* selected) {
  auto flags = std::make_shared<ExportFlags>();
  CLI::App* command = app.add_subcommand(
      "export",
      "Write a narrow model out of a wide one, item vectors for another engine, or events out of a "
      "server's request log");
  CLI::Option* model = command->add_option("--model", flags->model, "Checkpoint");
  CLI::Option* dim =
      command->add_option("--dim", flags->dim, "Widest size to keep; of vectors, their width")
          ->check(WholeNumber(NestedSizes::kMinWidth, NestedSizes::kMaxDim));
  CLI::Option* embeddings = command->add_flag("--embeddings", flags->embeddings,
                                              "Instead: ids and item vectors at --dim. The output "
                                              "is .jsonl, a line per item, or .npy, with "
                                              "the ids in .ids.jsonl beside it");
  command
      ->add_option("--events", flags->events,
                   "Instead: request logs of servers (serve --request-log), whose events are "
                   "written as prepare reads them")
      ->excludes(model)
      ->excludes(dim)
      ->excludes(embeddings)
      ->type_name("LOG");
  command->add_option("-o,--output", flags->output, "File to write")->required();
  command->add_flag("--overwrite", flags->overwrite, "Replace the output if it exists");
  command->callback([flags, selected] { *selected = [flags] { return RunExport(*flags); }; });
}

}  // namespace nestrec
