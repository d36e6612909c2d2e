// nestrec export: the first levels of a checkpoint as a checkpoint of their own.
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/nested_sizes.h"
#include "base/status_macros.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "model/checkpoint.h"

namespace nestrec {
namespace {

struct ExportFlags {
  std::string model;
  std::string output;
  int dim = 0;
  bool overwrite = false;
};

absl::Status RunExport(const ExportFlags& flags) {
  NESTREC_RETURN_IF_ERROR(CheckWritable(flags.output));
  if (FileExists(flags.output) && !flags.overwrite) {
    return absl::AlreadyExistsError(absl::StrCat(flags.output, " exists; --overwrite replaces it"));
  }
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
  CLI::App* command = app.add_subcommand("export", "Write a narrow model out of a wide one");
  command->add_option("--model", flags->model, "Checkpoint")->required();
  command->add_option("--dim", flags->dim, "Widest size to keep")
      ->required()
      ->check(WholeNumber(NestedSizes::kMinWidth, NestedSizes::kMaxDim));
  command->add_option("-o,--output", flags->output, "Checkpoint to write")->required();
  command->add_flag("--overwrite", flags->overwrite, "Replace the output if it exists");
  command->callback([flags, selected] { *selected = [flags] { return RunExport(*flags); }; });
}

}  // namespace nestrec
