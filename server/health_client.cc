#include "server/health_client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/rpc_status.h"

namespace nestrec {

absl::Status CheckHealth(const HealthQuery& query) {
  namespace health = grpc::health::v1;
  const auto stub = health::Health::NewStub(
      grpc::CreateChannel(query.address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(query.timeout));
  health::HealthCheckRequest request;
  request.set_service(query.service);
  health::HealthCheckResponse response;
  const absl::Status status = FromGrpcStatus(stub->Check(&context, request, &response));
  const std::string who =
      query.service.empty() ? query.address : absl::StrCat(query.service, " at ", query.address);
  switch (status.code()) {
    case absl::StatusCode::kOk:
      break;
    case absl::StatusCode::kUnavailable:
      return absl::UnavailableError(absl::StrCat("no server answers at ", query.address));
    case absl::StatusCode::kDeadlineExceeded:
      return absl::DeadlineExceededError(absl::StrCat("no answer from ", query.address, " within ",
                                                      absl::FormatDuration(query.timeout)));
    case absl::StatusCode::kNotFound:
      return absl::NotFoundError(
          absl::StrCat(query.address, " does not know the service \"", query.service, "\""));
    case absl::StatusCode::kUnimplemented:
      return absl::UnimplementedError(
          absl::StrCat("the server at ", query.address, " has no grpc.health.v1"));
    default:
      return status;
  }
  if (response.status() == health::HealthCheckResponse::SERVING) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(
      who, " is ", health::HealthCheckResponse::ServingStatus_Name(response.status())));
}

}  // namespace nestrec
