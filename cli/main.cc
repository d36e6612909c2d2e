// nestrec: trains one nested model and serves every size of it. See `nestrec --help`.
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/version.h"
#include "cli/commands.h"

namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitInterrupted = 130;  // as a shell reports Ctrl-C

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Trains one nested recommendation model and serves every size of it.");
  app.set_version_flag("--version", absl::StrCat("nestrec ", nestrec::kVersion));
  app.require_subcommand(1);
  app.get_formatter()->column_width(36);
  nestrec::Command selected;
  nestrec::AddPrepareCommand(app, &selected);
  nestrec::AddTrainCommand(app, &selected);
  nestrec::AddEvaluateCommand(app, &selected);
  nestrec::AddExportCommand(app, &selected);
  nestrec::AddInspectCommand(app, &selected);
  nestrec::AddServeCommand(app, &selected);
  nestrec::AddRecommendCommand(app, &selected);
  nestrec::AddMakeShopCommand(app, &selected);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // 0 for --help and --version; CLI11 prints the message and how to get help.
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  const absl::Status status = selected();
  if (status.ok()) return 0;
  std::fflush(stdout);
  std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
  return status.code() == absl::StatusCode::kCancelled ? kExitInterrupted : kExitFailed;
}
