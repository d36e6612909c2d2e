#include "server/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "grpc/health/v1/health.pb.h"
#include "server/acceptor.h"
#include "server/admin_service.h"
#include "server/call_tracker.h"
#include "server/listen_address.h"
#include "server/observability.h"
#include "server/recommend_engine.h"
#include "server/recommend_service.h"
#include "server/worker_pool.h"

namespace nestrec {
namespace {

// Calls beyond this wait in the client, which gives them up by itself. Without a limit, one that
// sends faster than the server answers, or reads no answers, has its calls kept here, up to 250 KB
// each.
constexpr int kCallsPerConnection = 1000;
// Clients may ask so often whether this server is still there, with calls under way or without: one
// that has vanished with its machine says nothing, and is found out by that alone. Who asks more
// often is told to go away (ENHANCE_YOUR_CALM).
constexpr int kLeastPingIntervalMs = 5'000;
// A client that vanished without a word is found out after so long, and then so long.
constexpr int kClientPingIntervalMs = 300'000;
constexpr int kClientPingTimeoutMs = 20'000;
// At the end, new calls are refused until none has come for so long, and at most for so long.
constexpr absl::Duration kQuiet = absl::Milliseconds(100);
constexpr std::chrono::seconds kLongestRefusing{1};

}  // namespace

class Server::Impl {
 public:
  // Calls that change items and wait for the one before; each may hold a message.
  static constexpr size_t kWaitingItemCalls = 16;

  // `models` is null where nothing changes; `snapshots` keeps it alive.
  Impl(ServerOptions options, std::shared_ptr<SnapshotSource> snapshots, ModelManager* models,
       std::unique_ptr<Security> security)
      : options_(std::move(options)),
        observability_(options_.observe, options_.clock),
        security_(std::move(security)),
        snapshots_(std::move(snapshots)),
        models_(models),
        first_(snapshots_->Stable()),
        engine_(*first_, {.workers = options_.threads,
                          .queue_capacity = options_.queue_capacity,
                          .max_batch = options_.max_batch,
                          .batch_delay = options_.batch_delay,
                          .overload_target = options_.overload_target,
                          .sessions = options_.sessions.get(),
                          .observers = observability_.observers(),
                          .clock = options_.clock}),
        session_workers_(options_.sessions == nullptr ? nullptr : MakeSessionWorkers(options_)),
        item_workers_(options_.live_items == nullptr ? nullptr : MakeItemWorkers(options_)),
        service_(snapshots_.get(), options_.limits,
                 {.tracker = &calls_, .hooks = Hooks(), .clock = options_.clock}, &engine_,
                 {.manager = options_.sessions.get(),
                  .workers = session_workers_.get(),
                  .recorder = options_.observe.recorder},
                 {.items = options_.live_items.get(), .workers = item_workers_.get()}),
        admin_(models_, &security_->access(), &options_.log, observability_.hooks(),
               options_.clock),
        call_memory_("calls") {
    call_memory_.Resize(static_cast<size_t>(options_.call_memory_bytes));
    observability_.Watch({.engine = &engine_,
                          .snapshots = snapshots_.get(),
                          .session_workers = session_workers_.get(),
                          .sessions = options_.sessions.get(),
                          .models = models_});
  }

  absl::Status Start(ListenAddress address, ListenAddress admin_address) {
    if (options_.live_items != nullptr) {
      NESTREC_RETURN_IF_ERROR(options_.live_items->Attach(first_));
    }
    NESTREC_RETURN_IF_ERROR(engine_.WarmUp(*first_));
    first_.reset();
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    // gRPC's health service has no descriptor of its own; naming ours here links it, so that
    // reflection can describe the service.
    google::protobuf::LinkMessageReflection<grpc::health::v1::HealthCheckRequest>();
    if (models_ != nullptr && !options_.admin_listen.empty()) {
      NESTREC_RETURN_IF_ERROR(StartAdmin(admin_address));
    }
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(options_.max_message_bytes);
    builder.SetResourceQuota(call_memory_);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kCallsPerConnection);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                               kLeastPingIntervalMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kClientPingIntervalMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kClientPingTimeoutMs);
    NESTREC_ASSIGN_OR_RETURN(acceptor_, Acceptor::Listen(address, options_.log));
    acceptor_->AddTo(builder, security_->credentials());
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) return absl::InternalError("cannot start the gRPC server");
    acceptor_->Start();
    port_ = address.port = acceptor_->port();
    address_ = address.ToString();
    snapshots_->StartUpdates([this](const Snapshot& next) -> absl::Status {
      NESTREC_RETURN_IF_ERROR(engine_.CheckTiers(next));
      return engine_.WarmUp(next);
    });
    SetHealth(true);
    return absl::OkStatus();
  }

  void Shutdown(absl::Duration grace) {
    std::call_once(shut_down_, [&] {
      snapshots_->StopUpdates();
      if (server_ != nullptr) {
        SetHealth(false);
        const Instant end =
            SteadyClock()() + absl::ToChronoNanoseconds(std::min(grace, kLongestGrace));
        calls_.Drain(end);
        // Who still calls is told UNAVAILABLE, which may be sent again elsewhere; what comes when
        // gRPC shuts down is CANCELLED.
        calls_.WaitUntilQuiet(kQuiet, std::min(end, SteadyClock()() + kLongestRefusing));
        acceptor_->Stop();
        // Ends what is left: calls beyond the grace, watches of health, connections.
        server_->Shutdown(std::chrono::system_clock::now());
      }
      if (admin_server_ != nullptr) {
        admin_acceptor_->Stop();
        admin_server_->Shutdown(std::chrono::system_clock::now());
      }
      // These hand work to the others.
      if (session_workers_ != nullptr) {
        session_workers_->Shutdown();
      }
      if (item_workers_ != nullptr) {
        item_workers_->Shutdown();
      }
      engine_.Shutdown();
      observability_.Stop();
    });
  }

  int port() const { return port_; }
  const std::string& address() const { return address_; }
  const std::string& admin_address() const { return admin_address_; }

 private:
  absl::Status StartAdmin(ListenAddress address) {
    grpc::ServerBuilder builder;
    NESTREC_ASSIGN_OR_RETURN(admin_acceptor_, Acceptor::Listen(address, options_.log));
    builder.SetResourceQuota(call_memory_);
    admin_acceptor_->AddTo(builder, security_->credentials());
    builder.RegisterService(&admin_);
    admin_server_ = builder.BuildAndStart();
    if (admin_server_ == nullptr) return absl::InternalError("cannot start the admin server");
    admin_acceptor_->Start();
    address.port = admin_acceptor_->port();
    admin_address_ = address.ToString();
    return absl::OkStatus();
  }

  static std::unique_ptr<WorkerPool> MakeSessionWorkers(const ServerOptions& options) {
    return std::make_unique<WorkerPool>(
        WorkerPool::Options{.threads = options.session_threads,
                            .queue_capacity = static_cast<size_t>(options.queue_capacity),
                            .clock = options.clock});
  }

  // Those that count come first: they see what the others refuse.
  std::vector<CallHook*> Hooks() {
    std::vector<CallHook*> hooks = observability_.hooks();
    hooks.push_back(&security_->access());
    return hooks;
  }

  // Changes of items run one after the other.
  static std::unique_ptr<WorkerPool> MakeItemWorkers(const ServerOptions& options) {
    return std::make_unique<WorkerPool>(WorkerPool::Options{
        .threads = 1, .queue_capacity = kWaitingItemCalls, .clock = options.clock});
  }

  void SetHealth(bool serving) {
    grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
    health->SetServingStatus(v1::RecommendService::service_full_name(), serving);
    health->SetServingStatus(serving);
  }

  const ServerOptions options_;
  Observability observability_;
  CallTracker calls_;
  const std::unique_ptr<Security> security_;
  const std::shared_ptr<SnapshotSource> snapshots_;
  ModelManager* const models_;
  std::shared_ptr<const Snapshot> first_;  // until it is warm
  RecommendEngine engine_;
  const std::unique_ptr<WorkerPool> session_workers_;
  const std::unique_ptr<WorkerPool> item_workers_;
  RecommendServiceImpl service_;
  AdminServiceImpl admin_;
  grpc::ResourceQuota call_memory_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<grpc::Server> admin_server_;
  std::unique_ptr<Acceptor> acceptor_, admin_acceptor_;
  std::string admin_address_;
  int port_ = 0;
  std::string address_;
  std::once_flag shut_down_;
};

absl::StatusOr<std::unique_ptr<Server>> Server::Start(ServerOptions options,
                                                      std::shared_ptr<const Snapshot> snapshot) {
  return StartWith(std::move(options), std::make_shared<OneSnapshot>(std::move(snapshot)), nullptr);
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(ServerOptions options,
                                                      std::shared_ptr<ModelManager> models) {
  ModelManager* const manager = models.get();
  return StartWith(std::move(options), std::move(models), manager);
}

absl::StatusOr<std::unique_ptr<Server>> Server::StartWith(ServerOptions options,
                                                          std::shared_ptr<SnapshotSource> snapshots,
                                                          ModelManager* models) {
  if (options.threads < 1 || options.queue_capacity < 1 || options.max_message_bytes < 1 ||
      options.session_threads < 1 || options.max_batch < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "threads (", options.threads, "), session threads (", options.session_threads,
        "), queue capacity (", options.queue_capacity, "), batch size (", options.max_batch,
        ") and message size (", options.max_message_bytes, ") must be at least 1"));
  }
  if (options.call_memory_bytes < kLeastCallMemory ||
      options.call_memory_bytes < 2 * int64_t{options.max_message_bytes}) {
    return absl::InvalidArgumentError(absl::StrCat(
        "call memory (", options.call_memory_bytes, " bytes) must be at least ", kLeastCallMemory,
        " bytes, and twice the largest message (", options.max_message_bytes, " bytes)"));
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
  ListenAddress admin_address;
  if (!options.admin_listen.empty()) {
    NESTREC_ASSIGN_OR_RETURN(admin_address, ListenAddress::Parse(options.admin_listen));
    NESTREC_RETURN_IF_ERROR(CheckCanListen(admin_address));
  }
  NESTREC_ASSIGN_OR_RETURN(std::unique_ptr<Security> security,
                           Security::Create(options.security, options.log));
  return Guard("starting the server", [&]() -> absl::StatusOr<std::unique_ptr<Server>> {
    auto impl = std::make_unique<Impl>(std::move(options), std::move(snapshots), models,
                                       std::move(security));
    NESTREC_RETURN_IF_ERROR(impl->Start(address, admin_address));
    return std::unique_ptr<Server>(new Server(std::move(impl)));
  });
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() { Shutdown(absl::ZeroDuration()); }

int Server::port() const { return impl_->port(); }
const std::string& Server::address() const { return impl_->address(); }
const std::string& Server::admin_address() const { return impl_->admin_address(); }
void Server::Shutdown(absl::Duration grace) { impl_->Shutdown(grace); }

}  // namespace nestrec
