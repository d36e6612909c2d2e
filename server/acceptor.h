// Takes connections in for a gRPC server.
//
//   NESTREC_ASSIGN_OR_RETURN(auto acceptor, Acceptor::Listen(address, log));
//   acceptor->AddTo(builder, credentials);
//   auto server = builder.BuildAndStart();
//   acceptor->Start();
//
// gRPC's own listener gives up for good at the first connection for which the process has no file
// descriptor left, while the process lives on. This one tries again ten times a second until there
// is one, says so in the log (accept_failed), and lets callers wait in the system's queue.
//
// Threads: one that waits for connections. Thread safety: Stop may be called from any thread; the
// rest belongs to the thread that starts the server.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "server/listen_address.h"
#include "server/log.h"

namespace nestrec {

class Acceptor {
 public:
  // Binds every address that `address` resolves to; one that can be bound is enough. For all
  // interfaces of IPv4 those of IPv6 are meant too, as gRPC does. Errors of CheckCanListen.
  static absl::StatusOr<std::unique_ptr<Acceptor>> Listen(const ListenAddress& address, Log log);
  // Stops.
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  // That was bound.
  int port() const { return port_; }
  // Before the server is built.
  void AddTo(grpc::ServerBuilder& builder,
             const std::shared_ptr<grpc::ServerCredentials>& credentials);
  // REQUIRES: the server that was built from the builder runs.
  void Start();
  // No connection is taken in any more when this returns. May be called again.
  void Stop();

 private:
  Acceptor(std::vector<int> sockets, int port, int stop_fd, Log log);
  void Run();
  // False where there is no descriptor, or no memory, for a connection.
  bool AcceptAll(int socket);

  const std::vector<int> sockets_;
  const int port_;
  const int stop_fd_;  // an eventfd; readable: stop
  const Log log_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> into_;
  std::thread thread_;
};

}  // namespace nestrec
