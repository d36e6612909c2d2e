// nestrec: trains one nested model and serves every size of it. See `nestrec --help`.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "base/file.h"
#include "base/printable.h"
#include "base/version.h"
#include "cli/commands.h"
#include "cli/flags.h"

namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitInterrupted = 130;  // as a shell reports Ctrl-C

// OpenMP's threads wait for each other by spinning unless told otherwise before the program starts.
// On a machine that does anything else at the same time, or in a container with a CPU quota, the
// spinning thread burns the very time slice that the other one needs: training steps were measured
// 8 times slower with two busy neighbours. So the commands that train, whose work OpenMP splits,
// start the program once more with passive waiting, unless the user has chosen.
void WaitPassively(int argc, char** argv) {
  const absl::string_view command = argc < 2 ? "" : argv[1];
  if (command != "train" && command != "experiment") return;
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return;
  setenv("OMP_WAIT_POLICY", "passive", 1);
  execv("/proc/self/exe", argv);  // returns only when it fails: then go on as we are
}

// Distributions build Abseil with its search for deadlocks, which shows in
// profiles of a loaded server: every lock is looked up in a graph.
void LockPlainly() { absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore); }

// Messages quote what came from outside.
void PrintError(absl::string_view message) {
  std::fprintf(stderr, "error: %s\n", nestrec::PrintableLines(message).c_str());
}

int ReportUsage(const CLI::App& app, absl::string_view message) {
  PrintError(message);
  const auto chosen = app.get_subcommands();
  std::fprintf(stderr, "Run nestrec %s--help for more information.\n",
               chosen.empty() ? "" : (chosen.front()->get_name() + " ").c_str());
  return kExitUsage;
}

}  // namespace

int main(int argc, char** argv) {
  WaitPassively(argc, argv);
  LockPlainly();
  CLI::App app("Trains one nested recommendation model and serves every size of it.");
  app.set_version_flag("--version", absl::StrCat("nestrec ", nestrec::kVersion));
  app.require_subcommand(1);
  app.get_formatter()->column_width(36);
  nestrec::Command selected;
  nestrec::AddPrepareCommand(app, &selected);
  nestrec::AddTrainingCommands(app, &selected);
  nestrec::AddEvaluateCommand(app, &selected);
  nestrec::AddExportCommand(app, &selected);
  nestrec::AddInspectCommand(app, &selected);
  nestrec::AddServeCommand(app, &selected);
  nestrec::AddRecommendCommand(app, &selected);
  nestrec::AddEncodeCommand(app, &selected);
  nestrec::AddHealthCommand(app, &selected);
  nestrec::AddItemsCommand(app, &selected);
  nestrec::AddBenchCommand(app, &selected);
  nestrec::AddAdminCommand(app, &selected);
  nestrec::AddMakeShopCommand(app, &selected);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // CLI11 prints help and version.
    if (error.get_exit_code() == 0) return app.exit(error);
    const std::vector<std::string> unknown = app.remaining();
    return ReportUsage(app, app.get_subcommands().empty() && !unknown.empty()
                                ? absl::StrCat("'", unknown.front(), "' is not a subcommand")
                                : error.what());
  }
  absl::Status status = nestrec::CheckNoneEmpty(*app.get_subcommands().front());
  if (!status.ok()) return ReportUsage(app, status.message());
  status = selected();
  // A full disk behind a redirection must not look like success.
  if ((std::fflush(stdout) != 0 || std::ferror(stdout) != 0) && status.ok()) {
    status = nestrec::ErrnoStatus(errno, "cannot write", "the standard output");
  }
  if (status.ok()) return 0;
  if (nestrec::IsUsageError(status)) return ReportUsage(app, status.message());
  PrintError(status.message());
  return status.code() == absl::StatusCode::kCancelled ? kExitInterrupted : kExitFailed;
}
