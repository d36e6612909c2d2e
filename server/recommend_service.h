// nestrec.v1.RecommendService over gRPC's callback API. The RPC's thread validates and queues; the
// engine's workers choose the width, encode, search and answer.
//
// Ownership: what it is given must outlive every call, and no call may run any more when this
// object goes. Thread safety: as gRPC needs it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>

#include "nestrec/v1/recommend.grpc.pb.h"
#include "server/recommend_engine.h"
#include "server/session/session_manager.h"
#include "server/snapshot_source.h"
#include "server/unary_call.h"
#include "server/validate.h"
#include "server/worker_pool.h"

namespace nestrec {

class RequestRecorder;

// What the service needs to keep sessions; manager and workers null: it keeps none.
struct SessionParts {
  SessionManager* manager = nullptr;
  WorkerPool* workers = nullptr;        // that wait for the log
  RequestRecorder* recorder = nullptr;  // null: nothing is sampled
};

class RecommendServiceImpl final : public v1::RecommendService::CallbackService {
 public:
  // `path`: but for the service's name.
  RecommendServiceImpl(const SnapshotSource* snapshots, RequestLimits limits, CallPath path,
                       RecommendEngine* engine, SessionParts sessions);

  grpc::ServerUnaryReactor* Recommend(grpc::CallbackServerContext* context,
                                      const v1::RecommendRequest* request,
                                      v1::RecommendResponse* response) override;
  grpc::ServerUnaryReactor* RecordEvents(grpc::CallbackServerContext* context,
                                         const v1::RecordEventsRequest* request,
                                         v1::RecordEventsResponse* response) override;
  grpc::ServerUnaryReactor* ForgetUser(grpc::CallbackServerContext* context,
                                       const v1::ForgetUserRequest* request,
                                       v1::ForgetUserResponse* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const v1::GetModelInfoRequest* request,
                                         v1::GetModelInfoResponse* response) override;

 private:
  // Validates and queues; ok means that a worker finishes the call.
  absl::Status Start(UnaryCall* call, const v1::RecommendRequest& request,
                     v1::RecommendResponse* response);
  // Queues `work` for a thread that may wait for the session log; its status ends the call.
  absl::Status StartSessionWork(UnaryCall* call, std::function<absl::Status()> work);

  const SnapshotSource* const snapshots_;
  const RequestLimits limits_;
  const CallPath path_;
  RecommendEngine* const engine_;
  const SessionParts sessions_;
};

}  // namespace nestrec
