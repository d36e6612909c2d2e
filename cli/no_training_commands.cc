// In place of training_commands.cc in the program that serves without libtorch: says where training
// is.
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "cli/commands.h"

namespace nestrec {

void AddTrainingCommands(CLI::App& app, Command* selected) {
  for (const char* name : {"train", "experiment"}) {
    CLI::App* command =
        app.add_subcommand(name, "Not in this program: it serves, without libtorch");
    command->allow_extras();
    command->callback([name, selected] {
      *selected = [name] {
        return absl::UnimplementedError(
            absl::StrCat(name,
                         " is not in this program, which serves without libtorch; use the "
                         "whole one (package nestrec, image nestrec/train)"));
      };
    });
  }
}

}  // namespace nestrec
