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

// Of --<name>-listen and --<name>-port-file.
absl::Status CheckListener(absl::string_view name, const std::string& listen,
                           const std::string& port_file) {
  if (!listen.empty()) {
    const absl::StatusOr<ListenAddress> address = ListenAddress::Parse(listen);
    if (!address.ok()) {
      return UsageError(absl::InvalidArgumentError(
          absl::StrCat("--", name, "-listen: ", address.status().message())));
    }
    NESTREC_RETURN_IF_ERROR(CheckCanListen(*address));
  }
  if (port_file.empty()) return absl::OkStatus();
  if (listen.empty()) {
    return UsageError(absl::InvalidArgumentError(absl::StrCat(
        "--", name, "-port-file: there is no port without --", name, "-listen; give both")));
  }
  return CheckWritable(port_file);
}

absl::Status WritePort(const std::string& port_file, int port) {
  return port_file.empty() ? absl::OkStatus()
                           : WriteFileAtomically(port_file, absl::StrCat(port, "\n"));
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
                     "File that gets the port of --http-listen (default: none)");
  command.add_option("--health-listen", flags.health_listen,
                     "host:port for grpc.health.v1 alone, in plain text, for probes (default: "
                     "none)");
  command.add_option("--health-port-file", flags.health_port_file,
                     "File that gets the port of --health-listen (default: none)");
  command.add_option("--channelz-listen", flags.channelz_listen,
                     "host:port for grpc.channelz.v1, in plain text, for operators alone (default: "
                     "none)");
  command.add_option("--channelz-port-file", flags.channelz_port_file,
                     "File that gets the port of --channelz-listen (default: none)");
  command.add_option("--log-format", flags.log_format, "Lines of the log: text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command
      .add_option("--log-level", flags.log_level,
                  "Least level of the lines that are written; debug has every call")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->capture_default_str();
  command
      .add_option("--slow-request", flags.slow_request,
                  "Log calls that take at least this long, with their stages, up to 1h; 0s: none")
      ->capture_default_str();
  command
      .add_option("--quality-share", flags.quality_share,
                  "Share of the answers that are made again at the widest width, to measure what "
                  "the others lose; needs --http-listen")
      ->check(CLI::Range(0.0, 1.0))
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
                  "Size in bytes at which the file is put aside as .1, .2, ... and begun anew")
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
  if (flags.quality_share > 0 && flags.http_listen.empty()) {
    return UsageError(absl::InvalidArgumentError(
        "--quality-share: nobody would see what it measures without --http-listen; give both"));
  }
  NESTREC_RETURN_IF_ERROR(CheckListener("http", flags.http_listen, flags.http_port_file));
  NESTREC_RETURN_IF_ERROR(CheckListener("health", flags.health_listen, flags.health_port_file));
  return CheckListener("channelz", flags.channelz_listen, flags.channelz_port_file);
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
  view->ready_ = CollectReadiness(view->metrics_, view->readiness_);
  if (!flags.http_listen.empty()) {
    view->options_.metrics = &view->metrics_;
    view->options_.quality_share = flags.quality_share;
    NESTREC_ASSIGN_OR_RETURN(view->http_,
                             HttpServer::Start({.listen = flags.http_listen},
                                               OperatorPages(view->metrics_, view->readiness_)));
    view->log_.Info("http", {{"address", view->http_->address()}});
    NESTREC_RETURN_IF_ERROR(WritePort(flags.http_port_file, view->http_->port()));
  }
  if (!flags.health_listen.empty()) {
    NESTREC_ASSIGN_OR_RETURN(view->health_,
                             HealthListener::Start(flags.health_listen, view->readiness_));
    view->log_.Info("health", {{"address", view->health_->address()}});
    NESTREC_RETURN_IF_ERROR(WritePort(flags.health_port_file, view->health_->port()));
  }
  return view;
}

absl::Status OperatorView::ServersStarted(const OperatorFlags& flags) {
  if (flags.channelz_listen.empty()) return absl::OkStatus();
  NESTREC_ASSIGN_OR_RETURN(channelz_, ChannelzListener::Start(flags.channelz_listen));
  log_.Info("channelz", {{"address", channelz_->address()}});
  return WritePort(flags.channelz_port_file, channelz_->port());
}

}  // namespace nestrec
