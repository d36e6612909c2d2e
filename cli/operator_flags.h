// The flags of `serve` that say what operators see of it, and where.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/channelz_listener.h"
#include "server/health_listener.h"
#include "server/http_server.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/observability_options.h"
#include "server/readiness.h"
#include "server/request_recorder.h"

namespace nestrec {

struct OperatorFlags {
  std::string http_listen;
  std::string http_port_file;
  std::string health_listen;
  std::string health_port_file;
  std::string channelz_listen;
  std::string channelz_port_file;
  std::string log_format = "text";
  std::string log_level = "info";
  std::string slow_request = "0s";
  double quality_share = 0;
  std::string request_log;
  double request_log_share = 0.01;
  int64_t request_log_bytes = int64_t{100} << 20;
  int request_log_files = 5;
};

void AddOperatorFlags(CLI::App& command, OperatorFlags& flags);

// A usage error, naming the flag, for a value that is none; errors of CheckCanListen and
// CheckWritable for what cannot be had: better known before a model is loaded.
absl::Status CheckOperatorFlags(const OperatorFlags& flags);

// What shows a server to its operators from its first moment to its last; the server lives between.
class OperatorView {
 public:
  // Before the model is loaded and before any server. Errors of RequestRecorder::Open, of the
  // listeners and of WriteFileAtomically.
  static absl::StatusOr<std::unique_ptr<OperatorView>> Start(const OperatorFlags& flags);

  // What is to be started when all servers are.
  absl::Status ServersStarted(const OperatorFlags& flags);

  const Log& log() const { return log_; }
  Readiness& readiness() { return readiness_; }
  // For the server, which must not outlive this object.
  const ObservabilityOptions& options() const { return options_; }

 private:
  explicit OperatorView(Log log) : log_(std::move(log)) {}

  const Log log_;
  ObservabilityOptions options_;
  std::unique_ptr<RequestRecorder> recorder_;
  Metrics metrics_;
  Readiness readiness_{"the model is being loaded"};
  std::unique_ptr<Metrics::Registration> process_, ready_;
  std::unique_ptr<HttpServer> http_;  // its pages show the others
  std::unique_ptr<HealthListener> health_;
  std::unique_ptr<ChannelzListener> channelz_;
};

}  // namespace nestrec
