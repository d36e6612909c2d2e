// The flags of `serve` that say what operators see of it, and where.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/http_server.h"
#include "server/metrics.h"
#include "server/readiness.h"

namespace nestrec {

struct OperatorFlags {
  std::string http_listen;
  std::string http_port_file;
};

void AddOperatorFlags(CLI::App& command, OperatorFlags& flags);

// A usage error, naming the flag, for a value that is none; errors of CheckCanListen and
// CheckWritable for what cannot be had: better known before a model is loaded.
absl::Status CheckOperatorFlags(const OperatorFlags& flags);

// What shows a server to its operators from its first moment to its last; the server lives between.
class OperatorView {
 public:
  // Errors of HttpServer::Start and WriteFileAtomically.
  static absl::StatusOr<std::unique_ptr<OperatorView>> Start(const OperatorFlags& flags);

  Metrics& metrics() { return metrics_; }
  Readiness& readiness() { return readiness_; }
  // Null: none.
  const HttpServer* http() const { return http_.get(); }

 private:
  OperatorView() = default;

  Metrics metrics_;
  Readiness readiness_{"the model is being loaded"};
  std::unique_ptr<Metrics::Registration> process_;
  std::unique_ptr<HttpServer> http_;  // last: its pages show the others
};

}  // namespace nestrec
