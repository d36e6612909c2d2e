#include "server/health_listener.h"

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <grpcpp/resource_quota.h>

#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "nestrec/v1/recommend.grpc.pb.h"
#include "server/listen_address.h"

namespace nestrec {
namespace {

// A health request has the name of a service.
constexpr int kMaxMessageBytes = 4096;
constexpr size_t kMemoryBytes = 16 << 20;  // of all connections and what they have begun to send
constexpr int kMaxStreams = 16;            // of a connection
constexpr int kMaxIdleMs = 5 * 60 * 1000;

// gRPC adds reflection, and channelz once it was asked for, to every server of the process.
class NoPlugins final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments* /*arguments*/) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    plugins->clear();
  }
};

}  // namespace

struct HealthListener::Running {
  // Answers UNIMPLEMENTED to all else. gRPC wants a service besides its own one for health.
  grpc::CallbackGenericService others;
  Mutex mutex;
  std::unique_ptr<grpc::Server> server ABSL_GUARDED_BY(mutex);  // null once it has ended

  void Set(bool serving) {
    const MutexLock lock(mutex);
    if (server == nullptr) return;
    grpc::HealthCheckServiceInterface* health = server->GetHealthCheckService();
    health->SetServingStatus(v1::RecommendService::service_full_name(), serving);
    health->SetServingStatus(serving);
  }
};

absl::StatusOr<std::unique_ptr<HealthListener>> HealthListener::Start(const std::string& listen,
                                                                      Readiness& readiness) {
  NESTREC_ASSIGN_OR_RETURN(ListenAddress address, ListenAddress::Parse(listen));
  NESTREC_RETURN_IF_ERROR(CheckCanListen(address));
  return Guard(
      "starting the health listener", [&]() -> absl::StatusOr<std::unique_ptr<HealthListener>> {
        grpc::EnableDefaultHealthCheckService(true);
        grpc::ServerBuilder builder;
        // Two servers on one port would share its calls in silence.
        builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
        builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreams);
        builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, kMaxIdleMs);
        builder.SetOption(std::make_unique<NoPlugins>());
        builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
        builder.SetResourceQuota(grpc::ResourceQuota("health").Resize(kMemoryBytes));
        int port = 0;
        builder.AddListeningPort(address.ToString(), grpc::InsecureServerCredentials(), &port);
        auto running = std::make_shared<Running>();
        builder.RegisterCallbackGenericService(&running->others);
        {
          const MutexLock lock(running->mutex);
          running->server = builder.BuildAndStart();
          if (running->server == nullptr || port == 0) {
            return absl::UnavailableError(absl::StrCat("cannot listen on ", address.ToString()));
          }
        }
        readiness.Listen([running](bool ready) { running->Set(ready); });
        address.port = port;
        return std::unique_ptr<HealthListener>(
            new HealthListener(std::move(running), address.ToString(), port));
      });
}

HealthListener::HealthListener(std::shared_ptr<Running> running, std::string address, int port)
    : running_(std::move(running)), address_(std::move(address)), port_(port) {}

HealthListener::~HealthListener() {
  std::unique_ptr<grpc::Server> server;
  {
    const MutexLock lock(running_->mutex);
    server = std::move(running_->server);
  }
  server->Shutdown(std::chrono::system_clock::now());
}

}  // namespace nestrec
