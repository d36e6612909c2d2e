// nestrec.v1.RecommendService over gRPC's callback API. The RPC's thread validates and queues; the
// engine's workers choose the width, encode, search and answer.
//
// Ownership: tracker, engine and workers must outlive every call, and no call may run any more when
// this object goes. Thread safety: as gRPC needs it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>

#include "nestrec/v1/recommend.grpc.pb.h"
#include "server/call_tracker.h"
#include "server/clock.h"
#include "server/recommend_engine.h"
#include "server/session/session_manager.h"
#include "server/snapshot.h"
#include "server/validate.h"
#include "server/worker_pool.h"

namespace nestrec {

// What the service needs to keep sessions; both null: it keeps none.
struct SessionParts {
  SessionManager* manager = nullptr;
  WorkerPool* workers = nullptr;  // that wait for the log
};

class RecommendServiceImpl final : public v1::RecommendService::CallbackService {
 public:
  RecommendServiceImpl(std::shared_ptr<const Snapshot> snapshot, RequestLimits limits,
                       CallTracker* calls, RecommendEngine* engine, SessionParts sessions,
                       Clock clock);

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
  absl::Status Start(grpc::CallbackServerContext* context, const v1::RecommendRequest& request,
                     v1::RecommendResponse* response, grpc::ServerUnaryReactor* reactor);
  // Queues `work` for a thread that may wait for the session log; its status ends the call.
  absl::Status StartSessionWork(grpc::CallbackServerContext* context,
                                grpc::ServerUnaryReactor* reactor,
                                std::function<absl::Status()> work);

  const std::shared_ptr<const Snapshot> snapshot_;
  const RequestLimits limits_;
  CallTracker* const calls_;
  RecommendEngine* const engine_;
  const SessionParts sessions_;
  const Clock clock_;
};

}  // namespace nestrec
