#include "server/health_client.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/rpc_status.h"

namespace nestrec {

absl::Status CheckHealth(ClientOptions options, const std::string& service) {
  namespace health = grpc::health::v1;
  const std::string address = options.server;
  const absl::Duration timeout = options.timeout;
  const ClientChannel channel(std::move(options));
  const auto stub = health::Health::NewStub(channel.channel());
  const auto context = channel.NewContext();
  health::HealthCheckRequest request;
  request.set_service(service);
  health::HealthCheckResponse response;
  const absl::Status status = FromGrpcStatus(stub->Check(context.get(), request, &response));
  switch (status.code()) {
    case absl::StatusCode::kOk:
      break;
    case absl::StatusCode::kUnavailable:
      return absl::UnavailableError(absl::StrCat("no server answers at ", address));
    case absl::StatusCode::kDeadlineExceeded:
      return absl::DeadlineExceededError(
          absl::StrCat("no answer from ", address, " within ", absl::FormatDuration(timeout)));
    case absl::StatusCode::kNotFound:
      return absl::NotFoundError(
          absl::StrCat(address, " does not know the service \"", service, "\""));
    case absl::StatusCode::kUnimplemented:
      return absl::UnimplementedError(
          absl::StrCat("the server at ", address, " has no grpc.health.v1"));
    default:
      return status;
  }
  if (response.status() == health::HealthCheckResponse::SERVING) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat(service.empty() ? address : absl::StrCat(service, " at ", address), " is ",
                   health::HealthCheckResponse::ServingStatus_Name(response.status())));
}

}  // namespace nestrec
