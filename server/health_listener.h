// A listener that has grpc.health.v1 and nothing else, in plain text: for probes that can speak
// neither TLS nor tokens, as a kubelet's. It follows a Readiness, from before the model is loaded
// to the end of the drain, for the service "" and for nestrec.v1.RecommendService.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/readiness.h"

namespace nestrec {

class HealthListener {
 public:
  // `readiness` may outlive this object. Errors as those of Server::Start.
  static absl::StatusOr<std::unique_ptr<HealthListener>> Start(const std::string& listen,
                                                               Readiness& readiness);
  ~HealthListener();

  int port() const { return port_; }
  // With the port that was bound.
  const std::string& address() const { return address_; }

 private:
  struct Running;
  HealthListener(std::shared_ptr<Running> running, std::string address, int port);

  const std::shared_ptr<Running> running_;
  const std::string address_;
  const int port_;
};

}  // namespace nestrec
