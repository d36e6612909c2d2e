// nestrec.v1.AdminService: what an operator sees and changes while a server runs. Synchronous: its
// calls are few, and wait for models to load.
//
// Thread safety: as gRPC needs it.
#pragma once

#include <grpcpp/grpcpp.h>

#include "nestrec/v1/admin.grpc.pb.h"
#include "server/lifecycle/model_manager.h"
#include "server/log.h"
#include "server/security/access_control.h"

namespace nestrec {

class AdminServiceImpl final : public v1::AdminService::Service {
 public:
  // All outlive the service.
  AdminServiceImpl(ModelManager* models, const AccessControl* access, const Log* log)
      : models_(models), access_(access), log_(log) {}

  grpc::Status GetStatus(grpc::ServerContext* context, const v1::GetStatusRequest* request,
                         v1::GetStatusResponse* response) override;
  grpc::Status Reload(grpc::ServerContext* context, const v1::ReloadRequest* request,
                      v1::ReloadResponse* response) override;
  grpc::Status SetLabels(grpc::ServerContext* context, const v1::SetLabelsRequest* request,
                         v1::SetLabelsResponse* response) override;

 private:
  ModelManager* const models_;
  const AccessControl* const access_;
  const Log* const log_;
};

}  // namespace nestrec
