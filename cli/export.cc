// nestrec export: the first levels of a checkpoint as a checkpoint of their own, or the events of a
// server's request log as raw events.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/nested_sizes.h"
#include "base/status_macros.h"
#include "cli/commands.h"
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
  bool overwrite = false;
};

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

absl::Status RunExport(const ExportFlags& flags) {
  if (flags.events.empty() && (flags.model.empty() || flags.dim == 0)) {
    return UsageError(absl::InvalidArgumentError(
        "give --model and --dim for a narrow model, or --events for events"));
  }
  NESTREC_RETURN_IF_ERROR(CheckWritable(flags.output));
  if (FileExists(flags.output) && !flags.overwrite) {
    return absl::AlreadyExistsError(absl::StrCat(flags.output, " exists; --overwrite replaces it"));
  }
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
      "export", "Write a narrow model out of a wide one, or events out of a server's request log");
  CLI::Option* model = command->add_option("--model", flags->model, "Checkpoint");
  CLI::Option* dim = command->add_option("--dim", flags->dim, "Widest size to keep")
                         ->check(WholeNumber(NestedSizes::kMinWidth, NestedSizes::kMaxDim));
  command
      ->add_option("--events", flags->events,
                   "Instead: request logs of servers (serve --request-log), whose events are "
                   "written as prepare reads them")
      ->excludes(model)
      ->excludes(dim)
      ->type_name("LOG");
  command->add_option("-o,--output", flags->output, "File to write")->required();
  command->add_flag("--overwrite", flags->overwrite, "Replace the output if it exists");
  command->callback([flags, selected] { *selected = [flags] { return RunExport(*flags); }; });
}

}  // namespace nestrec
