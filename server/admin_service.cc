#include "server/admin_service.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "server/rpc_status.h"

namespace nestrec {
namespace {

// Of a call without a deadline.
constexpr absl::Duration kPatience = absl::Hours(1);

absl::Duration PatienceOf(const grpc::ServerContext& context) {
  const absl::Duration left =
      absl::FromChrono(context.deadline() - std::chrono::system_clock::now());
  // Leaves time to answer.
  return std::clamp(left - absl::Milliseconds(50), absl::ZeroDuration(), kPatience);
}

}  // namespace

grpc::Status AdminServiceImpl::Run(grpc::ServerContext* context, absl::string_view method,
                                   absl::FunctionRef<absl::Status()> body) const {
  CallInfo call{.context = context,
                .service = v1::AdminService::service_full_name(),
                .method = method,
                .arrived = clock_()};
  for (CallHook* hook : hooks_) hook->Arrived(call);
  const absl::Status status = Guard("an operator's call", [&]() -> absl::Status {
    NESTREC_RETURN_IF_ERROR(access_->AdmitOperator(*context));
    return body();
  });
  const absl::Duration took = Between(call.arrived, clock_());
  for (CallHook* hook : hooks_) hook->End(call, status, took);
  return ToGrpcStatus(status);
}

grpc::Status AdminServiceImpl::GetStatus(grpc::ServerContext* context,
                                         const v1::GetStatusRequest* /*request*/,
                                         v1::GetStatusResponse* response) {
  return Run(context, "GetStatus", [&]() -> absl::Status {
    *response = models_->Status();
    return absl::OkStatus();
  });
}

grpc::Status AdminServiceImpl::Reload(grpc::ServerContext* context,
                                      const v1::ReloadRequest* /*request*/,
                                      v1::ReloadResponse* response) {
  return Run(context, "Reload", [&]() -> absl::Status {
    log_->Info("reload_asked", {{"peer", context->peer()}});
    NESTREC_RETURN_IF_ERROR(models_->Reload(PatienceOf(*context)));
    *response->mutable_status() = models_->Status();
    return absl::OkStatus();
  });
}

grpc::Status AdminServiceImpl::SetLabels(grpc::ServerContext* context,
                                         const v1::SetLabelsRequest* request,
                                         v1::SetLabelsResponse* response) {
  return Run(context, "SetLabels", [&]() -> absl::Status {
    log_->Info("labels_asked",
               {{"peer", context->peer()}, {"labels", request->labels().ShortDebugString()}});
    NESTREC_ASSIGN_OR_RETURN(const bool kept,
                             models_->SetLabels(request->labels(), PatienceOf(*context)));
    response->set_persisted(kept);
    *response->mutable_status() = models_->Status();
    return absl::OkStatus();
  });
}

}  // namespace nestrec
