#include "cli/operator_flags.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "cli/flags.h"
#include "server/listen_address.h"
#include "server/operator_pages.h"
#include "server/process_metrics.h"

namespace nestrec {
namespace {

absl::Status CheckAddress(absl::string_view flag, const std::string& listen) {
  const absl::StatusOr<ListenAddress> address = ListenAddress::Parse(listen);
  if (!address.ok()) {
    return UsageError(
        absl::InvalidArgumentError(absl::StrCat(flag, ": ", address.status().message())));
  }
  return CheckCanListen(*address);
}

// 0s: no call is slow.
absl::StatusOr<absl::Duration> SlowRequestOf(const OperatorFlags& flags) {
  absl::Duration slow;
  if (!absl::ParseDuration(flags.slow_request, &slow) || slow < absl::ZeroDuration() ||
      slow > absl::Hours(1)) {
    return UsageError(absl::InvalidArgumentError(
        absl::StrCat("--slow-request: '", flags.slow_request,
                     "' is not a duration from 0s (none) to 1h, such as 50ms")));
  }
  return slow == absl::ZeroDuration() ? absl::InfiniteDuration() : slow;
}

LogOptions LogOptionsOf(const OperatorFlags& flags) {
  LogOptions options;
  options.format = flags.log_format == "json" ? LogFormat::kJson : LogFormat::kText;
  if (flags.log_level == "debug") options.level = LogLevel::kDebug;
  if (flags.log_level == "warning") options.level = LogLevel::kWarning;
  if (flags.log_level == "error") options.level = LogLevel::kError;
  return options;
}

}  // namespace

void AddOperatorFlags(CLI::App& command, OperatorFlags& flags) {
  command.add_option("--http-listen", flags.http_listen,
                     "host:port for /metrics, /healthz and /readyz; port 0 takes a free one "
                     "(default: none)");
  command.add_option("--http-port-file", flags.http_port_file,
                     "Write the port of --http-listen here");
  command.add_option("--log-format", flags.log_format, "Lines of the log: text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command.add_option("--log-level", flags.log_level, "Least level of the lines that are written")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->capture_default_str();
  command
      .add_option("--slow-request", flags.slow_request,
                  "Log calls that take at least this long, with their stages; 0s: none")
      ->capture_default_str();
  command.add_option("--request-log", flags.request_log,
                     "Write a sample of requests and events, with the ids of users and items, to "
                     "this file of JSON lines (default: none)");
  command
      .add_option("--request-log-share", flags.request_log_share,
                  "Share of the users, and of requests without one, that it has")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command
      .add_option("--request-log-bytes", flags.request_log_bytes,
                  "Size at which the file is put aside and begun anew")
      ->check(WholeNumber(1 << 16, uint64_t{1} << 40))
      ->capture_default_str();
  command
      .add_option("--request-log-files", flags.request_log_files,
                  "How many of these files are kept, the one that grows included")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
}

absl::Status CheckOperatorFlags(const OperatorFlags& flags) {
  NESTREC_RETURN_IF_ERROR(SlowRequestOf(flags).status());
  if (!flags.http_listen.empty()) {
    NESTREC_RETURN_IF_ERROR(CheckAddress("--http-listen", flags.http_listen));
  }
  if (!flags.http_port_file.empty()) {
    if (flags.http_listen.empty()) {
      return UsageError(absl::InvalidArgumentError(
          "--http-port-file: there is no port without --http-listen; give both"));
    }
    NESTREC_RETURN_IF_ERROR(CheckWritable(flags.http_port_file));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<OperatorView>> OperatorView::Start(const OperatorFlags& flags) {
  std::unique_ptr<OperatorView> view(new OperatorView(StderrLog(LogOptionsOf(flags))));
  view->options_.log = &view->log_;
  NESTREC_ASSIGN_OR_RETURN(view->options_.slow_request, SlowRequestOf(flags));
  if (!flags.request_log.empty()) {
    NESTREC_ASSIGN_OR_RETURN(
        view->recorder_, RequestRecorder::Open({.file = {.path = flags.request_log,
                                                         .max_file_bytes = flags.request_log_bytes,
                                                         .files = flags.request_log_files},
                                                .share = flags.request_log_share},
                                               view->log_));
    view->options_.recorder = view->recorder_.get();
  }
  view->process_ = CollectProcessMetrics(view->metrics_);
  if (!flags.http_listen.empty()) {
    view->options_.metrics = &view->metrics_;
    NESTREC_ASSIGN_OR_RETURN(view->http_,
                             HttpServer::Start({.listen = flags.http_listen},
                                               OperatorPages(view->metrics_, view->readiness_)));
    view->log_.Info("http", {{"address", view->http_->address()}});
  }
  if (!flags.http_port_file.empty()) {
    NESTREC_RETURN_IF_ERROR(
        WriteFileAtomically(flags.http_port_file, absl::StrCat(view->http_->port(), "\n")));
  }
  return view;
}

}  // namespace nestrec
