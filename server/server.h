// The gRPC server: nestrec.v1.RecommendService, grpc.health.v1.Health (per service) and reflection
// on one address; nestrec.v1.AdminService on another one, where it is asked for.
//
//   NESTREC_ASSIGN_OR_RETURN(auto server, Server::Start({.listen = "127.0.0.1:0"}, snapshot));
//   server->address();                      // "127.0.0.1:43121"
//   server->Shutdown(absl::Seconds(10));    // NOT_SERVING, then drain
//
// Threads: gRPC's own take calls in and send answers out; `threads` workers run the model;
// `session_threads` wait for the log of sessions, where there is one.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/call_memory.h"
#include "server/clock.h"
#include "server/lifecycle/model_manager.h"
#include "server/live/live_items.h"
#include "server/log.h"
#include "server/observability_options.h"
#include "server/security/security.h"
#include "server/session/session_manager.h"
#include "server/snapshot.h"
#include "server/snapshot_source.h"
#include "server/validate.h"

namespace nestrec {

struct ServerOptions {
  std::string listen = "127.0.0.1:50051";  // host:port; port 0: a free one
  int threads = 1;                         // workers
  int queue_capacity = 1024;               // requests that wait for a worker, of all tiers
  int max_batch = 8;                       // requests that a worker takes at once
  absl::Duration batch_delay = absl::ZeroDuration();  // that the first of a batch waits for others
  // The wait of a standing queue from which on requests are narrowed.
  absl::Duration overload_target = absl::Milliseconds(5);
  // Large enough that a history of a million ids gets an answer that names its limit, and not the
  // transport's.
  int max_message_bytes = 16 << 20;
  // What connections and the messages that clients have begun to send may take together, on both
  // listeners; see call_memory.h. REQUIRES: kLeastCallMemory or more, and room for two messages.
  int64_t call_memory_bytes = kAmpleCallMemory;
  RequestLimits limits;
  std::string admin_listen;                  // host:port for operators; empty: none
  SecurityOptions security;                  // of both listeners
  std::shared_ptr<SessionManager> sessions;  // null: the server keeps none
  int session_threads = 8;                   // that wait for the session log
  std::shared_ptr<LiveItems> live_items;     // that the snapshots follow; null: none are taken
  Log log{[](absl::string_view) {}};         // of what operators ask
  ObservabilityOptions observe;
  Clock clock = SteadyClock();
};

class Server {
 public:
  // Keeps sums of times in range; a longer grace is this one.
  static constexpr absl::Duration kLongestGrace = absl::Hours(24);
  static constexpr absl::Duration kLongestBatchDelay = absl::Seconds(1);

  // Warms up, and serves when it returns. kInvalidArgument: an option out of range, or an address
  // that is none or cannot be resolved. kUnavailable: the address is taken, by another server of
  // this program too, or is not one of this machine. kPermissionDenied: no right to listen there.
  static absl::StatusOr<std::unique_ptr<Server>> Start(ServerOptions options,
                                                       std::shared_ptr<const Snapshot> snapshot);
  // The same with models that change over time, until Shutdown.
  static absl::StatusOr<std::unique_ptr<Server>> Start(ServerOptions options,
                                                       std::shared_ptr<ModelManager> models);
  // Shuts down without grace.
  ~Server();

  int port() const;
  // With the port that was bound.
  const std::string& address() const;
  // Of the AdminService, with the port that was bound; empty: there is none.
  const std::string& admin_address() const;

  // Health answers NOT_SERVING; new calls are refused with kUnavailable; running ones may end
  // within `grace` and are cancelled then. Returns when all have ended. May be called again.
  void Shutdown(absl::Duration grace);

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  static absl::StatusOr<std::unique_ptr<Server>> StartWith(
      ServerOptions options, std::shared_ptr<SnapshotSource> snapshots, ModelManager* models);

  std::unique_ptr<Impl> impl_;
};

}  // namespace nestrec
