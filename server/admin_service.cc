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

grpc::Status AdminServiceImpl::GetStatus(grpc::ServerContext* context,
                                         const v1::GetStatusRequest* /*request*/,
                                         v1::GetStatusResponse* response) {
  return ToGrpcStatus(Guard("telling the status", [&]() -> absl::Status {
    NESTREC_RETURN_IF_ERROR(access_->AdmitOperator(*context));
    *response = models_->Status();
    return absl::OkStatus();
  }));
}

grpc::Status AdminServiceImpl::Reload(grpc::ServerContext* context,
                                      const v1::ReloadRequest* /*request*/,
                                      v1::ReloadResponse* response) {
  return ToGrpcStatus(Guard("reloading", [&]() -> absl::Status {
    NESTREC_RETURN_IF_ERROR(access_->AdmitOperator(*context));
    log_->Info("reload_asked", {{"peer", context->peer()}});
    NESTREC_RETURN_IF_ERROR(models_->Reload(PatienceOf(*context)));
    *response->mutable_status() = models_->Status();
    return absl::OkStatus();
  }));
}

grpc::Status AdminServiceImpl::SetLabels(grpc::ServerContext* context,
                                         const v1::SetLabelsRequest* request,
                                         v1::SetLabelsResponse* response) {
  return ToGrpcStatus(Guard("setting labels", [&]() -> absl::Status {
    NESTREC_RETURN_IF_ERROR(access_->AdmitOperator(*context));
    log_->Info("labels_asked",
               {{"peer", context->peer()}, {"labels", request->labels().ShortDebugString()}});
    NESTREC_ASSIGN_OR_RETURN(const bool kept,
                             models_->SetLabels(request->labels(), PatienceOf(*context)));
    response->set_persisted(kept);
    *response->mutable_status() = models_->Status();
    return absl::OkStatus();
  }));
}

}  // namespace nestrec
