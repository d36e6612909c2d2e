// nestrec bench: what can be measured without a program of its own.
#include "cli/commands.h"

namespace nestrec {

void AddBenchCommand(CLI::App& app, Command* selected) {
  CLI::App* bench = app.add_subcommand("bench", "Measure on this machine");
  bench->require_subcommand(1);
  AddBenchIndexCommand(*bench, selected);
  AddBenchLoadCommand(*bench, selected);
}

}  // namespace nestrec
