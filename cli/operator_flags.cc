#include "cli/operator_flags.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
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

}  // namespace

void AddOperatorFlags(CLI::App& command, OperatorFlags& flags) {
  command.add_option("--http-listen", flags.http_listen,
                     "host:port for /metrics, /healthz and /readyz; port 0 takes a free one "
                     "(default: none)");
  command.add_option("--http-port-file", flags.http_port_file,
                     "Write the port of --http-listen here");
}

absl::Status CheckOperatorFlags(const OperatorFlags& flags) {
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
  std::unique_ptr<OperatorView> view(new OperatorView);
  view->process_ = CollectProcessMetrics(view->metrics_);
  if (!flags.http_listen.empty()) {
    NESTREC_ASSIGN_OR_RETURN(view->http_,
                             HttpServer::Start({.listen = flags.http_listen},
                                               OperatorPages(view->metrics_, view->readiness_)));
  }
  if (!flags.http_port_file.empty()) {
    NESTREC_RETURN_IF_ERROR(
        WriteFileAtomically(flags.http_port_file, absl::StrCat(view->http_->port(), "\n")));
  }
  return view;
}

}  // namespace nestrec
