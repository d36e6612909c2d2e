// nestrec.v1.AdminService: what an operator sees and changes while a server runs. Synchronous: its
// calls are few, and wait for models to load.
//
// Thread safety: as gRPC needs it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "nestrec/v1/admin.grpc.pb.h"
#include "server/clock.h"
#include "server/lifecycle/model_manager.h"
#include "server/log.h"
#include "server/security/access_control.h"
#include "server/unary_call.h"

namespace nestrec {

class AdminServiceImpl final : public v1::AdminService::Service {
 public:
  // All outlive the service. `hooks` see its calls as those of all services.
  AdminServiceImpl(ModelManager* models, const AccessControl* access, const Log* log,
                   std::vector<CallHook*> hooks, Clock clock)
      : models_(models),
        access_(access),
        log_(log),
        hooks_(std::move(hooks)),
        clock_(std::move(clock)) {}

  grpc::Status GetStatus(grpc::ServerContext* context, const v1::GetStatusRequest* request,
                         v1::GetStatusResponse* response) override;
  grpc::Status Reload(grpc::ServerContext* context, const v1::ReloadRequest* request,
                      v1::ReloadResponse* response) override;
  grpc::Status SetLabels(grpc::ServerContext* context, const v1::SetLabelsRequest* request,
                         v1::SetLabelsResponse* response) override;

 private:
  // Runs `body` for an operator; nobody else.
  grpc::Status Run(grpc::ServerContext* context, absl::string_view method,
                   absl::FunctionRef<absl::Status()> body) const;

  ModelManager* const models_;
  const AccessControl* const access_;
  const Log* const log_;
  const std::vector<CallHook*> hooks_;
  const Clock clock_;
};

}  // namespace nestrec
