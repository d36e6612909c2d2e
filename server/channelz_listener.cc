#include "server/channelz_listener.h"

#include <grpcpp/ext/channelz_service_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "server/listen_address.h"

namespace nestrec {
namespace {

constexpr int kMaxMessageBytes = 4096;
constexpr size_t kMemoryBytes = 16 << 20;  // of all connections and what they have begun to send

}  // namespace

class ChannelzListener::Running {
 public:
  explicit Running(std::unique_ptr<grpc::Server> server) : server_(std::move(server)) {}
  ~Running() { server_->Shutdown(std::chrono::system_clock::now()); }

 private:
  const std::unique_ptr<grpc::Server> server_;
};

absl::StatusOr<std::unique_ptr<ChannelzListener>> ChannelzListener::Start(
    const std::string& listen) {
  NESTREC_ASSIGN_OR_RETURN(ListenAddress address, ListenAddress::Parse(listen));
  NESTREC_RETURN_IF_ERROR(CheckCanListen(address));
  return Guard("starting channelz", [&]() -> absl::StatusOr<std::unique_ptr<ChannelzListener>> {
    grpc::channelz::experimental::InitChannelzService();
    grpc::ServerBuilder builder;
    // Two servers on one port would share its calls in silence.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
    builder.SetResourceQuota(grpc::ResourceQuota("channelz").Resize(kMemoryBytes));
    int port = 0;
    builder.AddListeningPort(address.ToString(), grpc::InsecureServerCredentials(), &port);
    std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    if (server == nullptr || port == 0) {
      return absl::UnavailableError(absl::StrCat("cannot listen on ", address.ToString()));
    }
    address.port = port;
    return std::unique_ptr<ChannelzListener>(new ChannelzListener(
        std::make_unique<Running>(std::move(server)), address.ToString(), port));
  });
}

ChannelzListener::ChannelzListener(std::unique_ptr<Running> running, std::string address, int port)
    : running_(std::move(running)), address_(std::move(address)), port_(port) {}
ChannelzListener::~ChannelzListener() = default;

}  // namespace nestrec
