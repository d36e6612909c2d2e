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
#include "server/live/live_items.h"
#include "server/recommend_engine.h"
#include "server/recommend_starter.h"
#include "server/snapshot_source.h"
#include "server/unary_call.h"
#include "server/validate.h"

namespace nestrec {

// What the service needs to take items; both null: it takes none.
struct LiveItemParts {
  LiveItems* items = nullptr;
  WorkerPool* workers = nullptr;  // that wait for their file
};

class RecommendServiceImpl final : public v1::RecommendService::CallbackService {
 public:
  // `path`: but for the service's name.
  RecommendServiceImpl(const SnapshotSource* snapshots, RequestLimits limits, CallPath path,
                       RecommendEngine* engine, SessionParts sessions, LiveItemParts live_items);

  grpc::ServerUnaryReactor* Recommend(grpc::CallbackServerContext* context,
                                      const v1::RecommendRequest* request,
                                      v1::RecommendResponse* response) override;
  grpc::ServerUnaryReactor* BatchRecommend(grpc::CallbackServerContext* context,
                                           const v1::BatchRecommendRequest* request,
                                           v1::BatchRecommendResponse* response) override;
  grpc::ServerUnaryReactor* SimilarItems(grpc::CallbackServerContext* context,
                                         const v1::SimilarItemsRequest* request,
                                         v1::SimilarItemsResponse* response) override;
  grpc::ServerUnaryReactor* Encode(grpc::CallbackServerContext* context,
                                   const v1::EncodeRequest* request,
                                   v1::EncodeResponse* response) override;
  grpc::ServerUnaryReactor* RecordEvents(grpc::CallbackServerContext* context,
                                         const v1::RecordEventsRequest* request,
                                         v1::RecordEventsResponse* response) override;
  grpc::ServerUnaryReactor* ForgetUser(grpc::CallbackServerContext* context,
                                       const v1::ForgetUserRequest* request,
                                       v1::ForgetUserResponse* response) override;
  grpc::ServerUnaryReactor* UpsertItems(grpc::CallbackServerContext* context,
                                        const v1::UpsertItemsRequest* request,
                                        v1::UpsertItemsResponse* response) override;
  grpc::ServerUnaryReactor* RemoveItems(grpc::CallbackServerContext* context,
                                        const v1::RemoveItemsRequest* request,
                                        v1::RemoveItemsResponse* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const v1::GetModelInfoRequest* request,
                                         v1::GetModelInfoResponse* response) override;

 private:
  // Queues `work` for a thread that may wait for a disk or a network; its status ends the call.
  absl::Status StartWork(UnaryCall* call, WorkerPool& workers,
                         std::function<absl::Status()> work) const;

  const SnapshotSource* const snapshots_;
  const RequestLimits limits_;
  const CallPath path_;
  const SessionParts sessions_;
  const LiveItemParts live_items_;
  const RecommendStarter starter_;
};

}  // namespace nestrec
