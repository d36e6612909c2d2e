// nestrec admin: what an operator asks a running server's AdminService and tells it.
#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "base/printable.h"
#include "base/status_macros.h"
#include "cli/client_flags.h"
#include "cli/commands.h"
#include "nestrec/v1/admin.grpc.pb.h"
#include "server/client_channel.h"

namespace nestrec {
namespace {

struct AdminFlags {
  ClientFlags client;
  std::string stable, canary;
  double canary_share = 0, shadow_share = 0;
};

class AdminClient {
 public:
  static absl::StatusOr<std::unique_ptr<AdminClient>> Create(const ClientFlags& flags) {
    NESTREC_ASSIGN_OR_RETURN(ClientOptions options, ClientOptionsOf(flags));
    return std::unique_ptr<AdminClient>(new AdminClient(std::move(options)));
  }

  template <typename Request, typename Response>
  absl::Status Call(grpc::Status (v1::AdminService::StubInterface::*method)(grpc::ClientContext*,
                                                                            const Request&,
                                                                            Response*),
                    const Request& request, Response& response) {
    const auto context = channel_.NewContext();
    v1::AdminService::StubInterface& stub = *stub_;
    const grpc::Status status = (stub.*method)(context.get(), request, &response);
    if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
      return absl::UnimplementedError(
          "no AdminService there; give the address of the server's --admin-listen");
    }
    return status.ok() ? absl::OkStatus() : channel_.Explain(status);
  }

 private:
  explicit AdminClient(ClientOptions options)
      : channel_(std::move(options)), stub_(v1::AdminService::NewStub(channel_.channel())) {}

  const ClientChannel channel_;
  const std::unique_ptr<v1::AdminService::Stub> stub_;
};

void Print(const v1::GetStatusResponse& status) {
  std::printf("%-24s %-10s %-16s %-8s %s\n", "version", "state", "labels", "seconds", "checkpoint");
  for (const v1::ModelVersion& version : status.versions()) {
    const double seconds =
        static_cast<double>(version.load_time().seconds()) + 1e-9 * version.load_time().nanos();
    std::printf("%-24s %-10s %-16s %-8s %s\n", Printable(version.name()).c_str(),
                std::string(absl::StripPrefix(v1::ModelState_Name(version.state()), "MODEL_STATE_"))
                    .c_str(),
                absl::StrJoin(version.labels(), ",").c_str(),
                version.has_load_time() ? absl::StrCat(seconds).c_str() : "",
                version.model_version().c_str());
    if (!version.error().empty()) {
      std::printf("  %s\n", PrintableLines(version.error()).c_str());
    }
  }
  if (!status.labels().canary().empty()) {
    std::printf("canary share %g, shadow share %g\n", status.labels().canary_share(),
                status.labels().shadow_share());
  }
}

absl::Status RunStatus(const AdminFlags& flags) {
  NESTREC_ASSIGN_OR_RETURN(const auto client, AdminClient::Create(flags.client));
  v1::GetStatusResponse response;
  NESTREC_RETURN_IF_ERROR(
      client->Call(&v1::AdminService::StubInterface::GetStatus, v1::GetStatusRequest(), response));
  Print(response);
  return absl::OkStatus();
}

absl::Status RunReload(const AdminFlags& flags) {
  NESTREC_ASSIGN_OR_RETURN(const auto client, AdminClient::Create(flags.client));
  v1::ReloadResponse response;
  NESTREC_RETURN_IF_ERROR(
      client->Call(&v1::AdminService::StubInterface::Reload, v1::ReloadRequest(), response));
  Print(response.status());
  return absl::OkStatus();
}

absl::Status RunLabels(const AdminFlags& flags) {
  NESTREC_ASSIGN_OR_RETURN(const auto client, AdminClient::Create(flags.client));
  v1::SetLabelsRequest request;
  v1::ModelLabels& labels = *request.mutable_labels();
  labels.set_stable(flags.stable);
  labels.set_canary(flags.canary);
  labels.set_canary_share(flags.canary_share);
  labels.set_shadow_share(flags.shadow_share);
  v1::SetLabelsResponse response;
  NESTREC_RETURN_IF_ERROR(
      client->Call(&v1::AdminService::StubInterface::SetLabels, request, response));
  Print(response.status());
  if (!response.persisted()) {
    std::printf("the model folder cannot be written: the labels hold until this server ends\n");
  }
  return absl::OkStatus();
}

}  // namespace

void AddAdminCommand(CLI::App& app, Command* selected) {
  CLI::App* command = app.add_subcommand("admin", "Ask and tell a running server, as its operator");
  command->require_subcommand(1);
  const auto add = [&](const char* name, const char* what, double timeout_seconds,
                       absl::Status (*run)(const AdminFlags&)) {
    auto flags = std::make_shared<AdminFlags>();
    flags->client.timeout_seconds = timeout_seconds;
    CLI::App* sub = command->add_subcommand(name, what);
    AddClientFlags(*sub, flags->client);
    sub->get_option("--server")
        ->description("host:port of the server's --admin-listen")
        ->required();
    sub->callback([flags, selected, run] { *selected = [flags, run] { return run(*flags); }; });
    return std::pair(sub, flags);
  };
  add("status", "Show the model versions and what serves", 10, RunStatus);
  add("reload", "Look for models now, and wait until they serve", 600, RunReload);
  const auto [labels, flags] =
      add("labels", "Say which version serves; what is not given is unset", 600, RunLabels);
  labels->add_option("--stable", flags->stable, "Version that serves (default: the newest)");
  labels->add_option("--canary", flags->canary, "Version under trial, *: the newest");
  labels->add_option("--canary-share", flags->canary_share, "Share of the users that it serves")
      ->check(CLI::Range(0.0, 1.0));
  labels
      ->add_option("--shadow-share", flags->shadow_share,
                   "Share of the stable version's answers that it computes too, for comparison")
      ->check(CLI::Range(0.0, 1.0));
}

}  // namespace nestrec
