#include "server/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "grpc/health/v1/health.pb.h"
#include "server/call_tracker.h"
#include "server/listen_address.h"
#include "server/recommend_engine.h"
#include "server/recommend_service.h"
#include "server/worker_pool.h"

namespace nestrec {

class Server::Impl {
 public:
  Impl(ServerOptions options, std::shared_ptr<const Snapshot> snapshot)
      : options_(std::move(options)),
        snapshot_(std::move(snapshot)),
        engine_(*snapshot_, {.workers = options_.threads,
                             .queue_capacity = options_.queue_capacity,
                             .max_batch = options_.max_batch,
                             .batch_delay = options_.batch_delay,
                             .overload_target = options_.overload_target,
                             .sessions = options_.sessions.get(),
                             .clock = options_.clock}),
        session_workers_(options_.sessions == nullptr ? nullptr : MakeSessionWorkers(options_)),
        snapshots_(snapshot_),
        service_(&snapshots_, options_.limits, {.tracker = &calls_, .clock = options_.clock},
                 &engine_,
                 {.manager = options_.sessions.get(), .workers = session_workers_.get()}) {}

  absl::Status Start(ListenAddress address) {
    NESTREC_RETURN_IF_ERROR(engine_.WarmUp(*snapshot_));
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    // gRPC's health service has no descriptor of its own; naming ours here links it, so that
    // reflection can describe the service.
    google::protobuf::LinkMessageReflection<grpc::health::v1::HealthCheckRequest>();
    grpc::ServerBuilder builder;
    // Two servers on one port would share its calls in silence.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.SetMaxReceiveMessageSize(options_.max_message_bytes);
    builder.AddListeningPort(address.ToString(), grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port_ == 0) {
      // Somebody was faster than we between the check and here.
      return absl::UnavailableError(absl::StrCat("cannot listen on ", address.ToString()));
    }
    address.port = port_;
    address_ = address.ToString();
    SetHealth(true);
    return absl::OkStatus();
  }

  void Shutdown(absl::Duration grace) {
    std::call_once(shut_down_, [&] {
      if (server_ != nullptr) {
        SetHealth(false);
        calls_.Drain(SteadyClock()() + absl::ToChronoNanoseconds(std::min(grace, kLongestGrace)));
        // Ends what is left: calls beyond the grace, watches of health, connections.
        server_->Shutdown(std::chrono::system_clock::now());
      }
      // These hand work to the others.
      if (session_workers_ != nullptr) {
        session_workers_->Shutdown();
      }
      engine_.Shutdown();
    });
  }

  int port() const { return port_; }
  const std::string& address() const { return address_; }

 private:
  static std::unique_ptr<WorkerPool> MakeSessionWorkers(const ServerOptions& options) {
    return std::make_unique<WorkerPool>(
        WorkerPool::Options{.threads = options.session_threads,
                            .queue_capacity = static_cast<size_t>(options.queue_capacity),
                            .clock = options.clock});
  }

  void SetHealth(bool serving) {
    grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
    health->SetServingStatus(v1::RecommendService::service_full_name(), serving);
    health->SetServingStatus(serving);
  }

  const ServerOptions options_;
  CallTracker calls_;
  const std::shared_ptr<const Snapshot> snapshot_;
  RecommendEngine engine_;
  const std::unique_ptr<WorkerPool> session_workers_;
  const OneSnapshot snapshots_;
  RecommendServiceImpl service_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  std::string address_;
  std::once_flag shut_down_;
};

absl::StatusOr<std::unique_ptr<Server>> Server::Start(ServerOptions options,
                                                      std::shared_ptr<const Snapshot> snapshot) {
  if (options.threads < 1 || options.queue_capacity < 1 || options.max_message_bytes < 1 ||
      options.session_threads < 1 || options.max_batch < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "threads (", options.threads, "), session threads (", options.session_threads,
        "), queue capacity (", options.queue_capacity, "), batch size (", options.max_batch,
        ") and message size (", options.max_message_bytes, ") must be at least 1"));
  }
  if (options.batch_delay < absl::ZeroDuration() || options.batch_delay > kLongestBatchDelay ||
      options.overload_target <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("batch delay (", absl::FormatDuration(options.batch_delay), ") must be 0 to ",
                     absl::FormatDuration(kLongestBatchDelay), ", overload target (",
                     absl::FormatDuration(options.overload_target), ") above 0"));
  }
  NESTREC_ASSIGN_OR_RETURN(const ListenAddress address, ListenAddress::Parse(options.listen));
  NESTREC_RETURN_IF_ERROR(CheckCanListen(address));
  return Guard("starting the server", [&]() -> absl::StatusOr<std::unique_ptr<Server>> {
    auto impl = std::make_unique<Impl>(std::move(options), std::move(snapshot));
    NESTREC_RETURN_IF_ERROR(impl->Start(address));
    return std::unique_ptr<Server>(new Server(std::move(impl)));
  });
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() { Shutdown(absl::ZeroDuration()); }

int Server::port() const { return impl_->port(); }
const std::string& Server::address() const { return impl_->address(); }
void Server::Shutdown(absl::Duration grace) { impl_->Shutdown(grace); }

}  // namespace nestrec
