#include "server/recommend_service.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "server/batch_recommend.h"
#include "server/item_requests.h"
#include "server/request_recorder.h"
#include "server/responses.h"
#include "server/session_requests.h"

namespace nestrec {
namespace {

RecommendTarget TargetOf(UnaryCall* call) {
  return {.cancelled = [call] { return call->Cancelled(); },
          .done = [call](const absl::Status& status) { call->End(status); },
          .arrived = call->info().arrived,
          .deadline = call->info().deadline,
          .request_id = call->info().request_id,
          .details = &call->details()};
}

}  // namespace

RecommendServiceImpl::RecommendServiceImpl(const SnapshotSource* snapshots, RequestLimits limits,
                                           CallPath path, RecommendEngine* engine,
                                           SessionParts sessions, LiveItemParts live_items)
    : snapshots_(snapshots),
      limits_(limits),
      path_([&] {
        path.service = v1::RecommendService::service_full_name();
        return std::move(path);
      }()),
      sessions_(sessions),
      live_items_(live_items),
      starter_(snapshots_, limits_, engine, sessions_, path_.clock) {}

grpc::ServerUnaryReactor* RecommendServiceImpl::Recommend(grpc::CallbackServerContext* context,
                                                          const v1::RecommendRequest* request,
                                                          v1::RecommendResponse* response) {
  return BeginCall(path_, context, "Recommend", [&](UnaryCall* call) {
    return starter_.Start(*request, response, TargetOf(call));
  });
}

grpc::ServerUnaryReactor* RecommendServiceImpl::SimilarItems(grpc::CallbackServerContext* context,
                                                             const v1::SimilarItemsRequest* request,
                                                             v1::SimilarItemsResponse* response) {
  return BeginCall(path_, context, "SimilarItems", [&](UnaryCall* call) {
    return starter_.Start(*request, response, TargetOf(call));
  });
}

grpc::ServerUnaryReactor* RecommendServiceImpl::Encode(grpc::CallbackServerContext* context,
                                                       const v1::EncodeRequest* request,
                                                       v1::EncodeResponse* response) {
  return BeginCall(path_, context, "Encode", [&](UnaryCall* call) {
    return starter_.Start(*request, response, TargetOf(call));
  });
}

grpc::ServerUnaryReactor* RecommendServiceImpl::BatchRecommend(
    grpc::CallbackServerContext* context, const v1::BatchRecommendRequest* request,
    v1::BatchRecommendResponse* response) {
  const auto start = [&](UnaryCall* call) -> absl::Status {
    NESTREC_RETURN_IF_ERROR(CheckBatch(*request, limits_));
    StartBatch(starter_, call, *request, response);
    return absl::OkStatus();
  };
  // More than the limit are refused, and count no more than it.
  return BeginCall(path_, context, "BatchRecommend", start,
                   std::clamp(request->requests_size(), 1, limits_.max_batch_requests));
}

absl::Status RecommendServiceImpl::StartWork(UnaryCall* call, WorkerPool& workers,
                                             std::function<absl::Status()> work) const {
  return workers.Submit({.deadline = call->info().deadline,
                         .cancelled = [call] { return call->Cancelled(); },
                         .run =
                             [this, work = std::move(work), call](Instant started) {
                               const absl::Status status = Guard("keeping a change", work);
                               call->details().queued = Between(call->info().arrived, started);
                               call->details().work = Between(started, path_.clock());
                               call->End(status);
                             },
                         .drop = [call](const absl::Status& why) { call->End(why); }});
}

grpc::ServerUnaryReactor* RecommendServiceImpl::RecordEvents(grpc::CallbackServerContext* context,
                                                             const v1::RecordEventsRequest* request,
                                                             v1::RecordEventsResponse* response) {
  return BeginCall(path_, context, "RecordEvents", [&](UnaryCall* call) -> absl::Status {
    if (sessions_.manager == nullptr) {
      return NoSessionsError();
    }
    const std::shared_ptr<const Snapshot> snapshot = snapshots_->For(request->user_id());
    NESTREC_ASSIGN_OR_RETURN(
        RecordQuery query,
        ValidateRecordEvents(*request, limits_, *snapshot->items(), absl::Now()));
    return StartWork(
        call, *sessions_.workers, [this, query = std::move(query), response]() -> absl::Status {
          NESTREC_RETURN_IF_ERROR(nestrec::RecordEvents(*sessions_.manager, query, *response));
          if (sessions_.recorder != nullptr && !response->duplicate()) {
            sessions_.recorder->Recorded(query);
          }
          return absl::OkStatus();
        });
  });
}

grpc::ServerUnaryReactor* RecommendServiceImpl::ForgetUser(grpc::CallbackServerContext* context,
                                                           const v1::ForgetUserRequest* request,
                                                           v1::ForgetUserResponse* response) {
  return BeginCall(path_, context, "ForgetUser", [&](UnaryCall* call) -> absl::Status {
    if (sessions_.manager == nullptr) {
      return NoSessionsError();
    }
    NESTREC_RETURN_IF_ERROR(ValidateForgetUser(*request, limits_));
    return StartWork(
        call, *sessions_.workers, [this, user = request->user_id(), response]() -> absl::Status {
          NESTREC_RETURN_IF_ERROR(nestrec::ForgetUser(*sessions_.manager, user, *response));
          if (sessions_.recorder != nullptr) sessions_.recorder->Forgotten(user);
          return absl::OkStatus();
        });
  });
}

grpc::ServerUnaryReactor* RecommendServiceImpl::UpsertItems(grpc::CallbackServerContext* context,
                                                            const v1::UpsertItemsRequest* request,
                                                            v1::UpsertItemsResponse* response) {
  return BeginCall(path_, context, "UpsertItems", [&](UnaryCall* call) -> absl::Status {
    if (live_items_.items == nullptr) {
      return NoLiveItemsError();
    }
    NESTREC_ASSIGN_OR_RETURN(std::vector<LiveItems::Upserted> items,
                             ValidateUpsert(*request, limits_));
    return StartWork(call, *live_items_.workers,
                     [this, items = std::move(items), response]() mutable {
                       return nestrec::UpsertItems(*live_items_.items, std::move(items),
                                                   *snapshots_->Stable(), *response);
                     });
  });
}

grpc::ServerUnaryReactor* RecommendServiceImpl::RemoveItems(grpc::CallbackServerContext* context,
                                                            const v1::RemoveItemsRequest* request,
                                                            v1::RemoveItemsResponse* response) {
  return BeginCall(path_, context, "RemoveItems", [&](UnaryCall* call) -> absl::Status {
    if (live_items_.items == nullptr) {
      return NoLiveItemsError();
    }
    NESTREC_RETURN_IF_ERROR(ValidateRemove(*request, limits_));
    std::vector<std::string> ids(request->item_ids().begin(), request->item_ids().end());
    return StartWork(call, *live_items_.workers,
                     [this, ids = std::move(ids), restore = request->restore(), response] {
                       return nestrec::RemoveItems(*live_items_.items, ids, restore,
                                                   *snapshots_->Stable(), *response);
                     });
  });
}

grpc::ServerUnaryReactor* RecommendServiceImpl::GetModelInfo(
    grpc::CallbackServerContext* context, const v1::GetModelInfoRequest* /*request*/,
    v1::GetModelInfoResponse* response) {
  return BeginCall(path_, context, "GetModelInfo", [&](UnaryCall* call) {
    FillModelInfo(*snapshots_->Stable(), limits_.max_k, *response);
    call->End(absl::OkStatus());
    return absl::OkStatus();
  });
}

}  // namespace nestrec
