// The subcommands of the `nestrec` program, one per file. Each Add function adds its subcommand and
// flags to the app; when the user chose it, parsing sets *selected to what runs it. Messages for
// people go to stdout (progress to stderr); an error comes back as a Status, a UsageError
// (cli/flags.h) where the command line is to blame, and is printed by main.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "absl/status/status.h"

namespace nestrec {

using Command = std::function<absl::Status()>;

void AddAdminCommand(CLI::App& app, Command* selected);
void AddBenchCommand(CLI::App& app, Command* selected);
// Subcommands of `nestrec bench`.
void AddBenchIndexCommand(CLI::App& bench, Command* selected);
void AddBenchLoadCommand(CLI::App& bench, Command* selected);
void AddEncodeCommand(CLI::App& app, Command* selected);
void AddEvaluateCommand(CLI::App& app, Command* selected);
void AddExperimentCommand(CLI::App& app, Command* selected);
void AddExportCommand(CLI::App& app, Command* selected);
void AddHealthCommand(CLI::App& app, Command* selected);
void AddInspectCommand(CLI::App& app, Command* selected);
void AddItemsCommand(CLI::App& app, Command* selected);
void AddMakeShopCommand(CLI::App& app, Command* selected);
void AddPrepareCommand(CLI::App& app, Command* selected);
void AddRecommendCommand(CLI::App& app, Command* selected);
void AddServeCommand(CLI::App& app, Command* selected);
void AddTrainCommand(CLI::App& app, Command* selected);

// train and experiment; in nestrec-serve, which has no libtorch, commands that say so.
void AddTrainingCommands(CLI::App& app, Command* selected);

}  // namespace nestrec
