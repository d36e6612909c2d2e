// The commands that train, of the whole program.
#include "cli/commands.h"

namespace nestrec {

void AddTrainingCommands(CLI::App& app, Command* selected) {
  AddTrainCommand(app, selected);
  AddExperimentCommand(app, selected);
}

}  // namespace nestrec
