// A listener that has grpc.channelz.v1: the connections of all of this process's gRPC servers, with
// the addresses of their peers and what was sent and received. In plain text and without
// authentication, so only for a network that operators alone reach.
//
// Make it after every other server of the process: gRPC adds channelz to each that is made later.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace nestrec {

class ChannelzListener {
 public:
  // Errors as those of Server::Start.
  static absl::StatusOr<std::unique_ptr<ChannelzListener>> Start(const std::string& listen);
  ~ChannelzListener();

  int port() const { return port_; }
  // With the port that was bound.
  const std::string& address() const { return address_; }

 private:
  class Running;
  ChannelzListener(std::unique_ptr<Running> running, std::string address, int port);

  const std::unique_ptr<Running> running_;
  const std::string address_;
  const int port_;
};

}  // namespace nestrec
