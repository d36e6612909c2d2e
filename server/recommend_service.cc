#include "server/recommend_service.h"

#include <utility>

#include "absl/time/clock.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "server/proto_time.h"
#include "server/recommend_engine.h"
#include "server/request_recorder.h"
#include "server/responses.h"
#include "server/session_requests.h"

namespace nestrec {
namespace {

// `call` and `response` live until the call is ended, which is what Answer and Fail do.
class Call final : public RecommendCall {
 public:
  Call(UnaryCall* call, v1::RecommendResponse* response, const Clock* clock)
      : call_(call), response_(response), clock_(clock) {}

  bool Cancelled() const override { return call_->Cancelled(); }
  void Answer(const Answered& answered) override {
    CallDetails& details = call_->details();
    details.dim = answered.width.dim;
    details.tier = answered.width.tier;
    details.why = WidthReasonName(answered.width.why);
    details.history = static_cast<int64_t>(
        query.history.size() + (query.session.has_value() ? query.session->items.size() : 0));
    details.queued = answered.queued;
    details.encode = answered.recommendation.encode;
    details.search = answered.recommendation.search;
    call_->End(Guard("answering", [&] {
      FillResponse(*snapshot, query, answered.width, answered.recommendation, answered.queued,
                   *response_);
      *response_->mutable_served()->mutable_timings()->mutable_total() =
          ToProto(Between(arrived, (*clock_)()));
      return absl::OkStatus();
    }));
  }
  void Fail(const absl::Status& why) override { call_->End(why); }

 private:
  UnaryCall* const call_;
  v1::RecommendResponse* const response_;
  const Clock* const clock_;
};

}  // namespace

RecommendServiceImpl::RecommendServiceImpl(const SnapshotSource* snapshots, RequestLimits limits,
                                           CallPath path, RecommendEngine* engine,
                                           SessionParts sessions)
    : snapshots_(snapshots),
      limits_(limits),
      path_([&] {
        path.service = v1::RecommendService::service_full_name();
        return std::move(path);
      }()),
      engine_(engine),
      sessions_(sessions) {}

grpc::ServerUnaryReactor* RecommendServiceImpl::Recommend(grpc::CallbackServerContext* context,
                                                          const v1::RecommendRequest* request,
                                                          v1::RecommendResponse* response) {
  return BeginCall(path_, context, "Recommend",
                   [&](UnaryCall* call) { return Start(call, *request, response); });
}

absl::Status RecommendServiceImpl::Start(UnaryCall* rpc, const v1::RecommendRequest& request,
                                         v1::RecommendResponse* response) {
  auto call = std::make_unique<Call>(rpc, response, &path_.clock);
  call->arrived = rpc->info().arrived;
  call->snapshot = snapshots_->For(request.user_id());
  call->deadline = rpc->info().deadline;
  call->request_id = rpc->info().request_id;
  NESTREC_ASSIGN_OR_RETURN(call->query,
                           ValidateRecommend(request, limits_, call->snapshot->catalogue(),
                                             call->snapshot->attributes()));
  rpc->details().k = call->query.k;
  rpc->details().history = static_cast<int64_t>(call->query.history.size());
  if (!call->query.user_id.empty() && sessions_.manager == nullptr) {
    return NoSessionsError();
  }
  if (call->query.user_id.empty() || !sessions_.manager->log().remote()) {
    return engine_->Submit(std::move(call));
  }
  // The model's threads do not wait for a network.
  const Instant deadline = call->deadline;
  return sessions_.workers->Submit(
      {.deadline = deadline,
       .cancelled = [rpc] { return rpc->Cancelled(); },
       .run =
           [this, rpc, waiting = std::make_shared<std::unique_ptr<Call>>(std::move(call))](
               Instant /*started*/) {
             const absl::Status status = Guard("reading a session", [&]() -> absl::Status {
               NESTREC_RETURN_IF_ERROR(ReadSession(
                   *sessions_.manager, (*waiting)->snapshot->catalogue(), (*waiting)->query));
               return engine_->Submit(std::move(*waiting));
             });
             if (!status.ok()) rpc->End(status);
           },
       .drop = [rpc](const absl::Status& why) { rpc->End(why); }});
}

absl::Status RecommendServiceImpl::StartSessionWork(UnaryCall* call,
                                                    std::function<absl::Status()> work) {
  return sessions_.workers->Submit(
      {.deadline = call->info().deadline,
       .cancelled = [call] { return call->Cancelled(); },
       .run = [work = std::move(work),
               call](Instant /*started*/) { call->End(Guard("keeping a session", work)); },
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
        ValidateRecordEvents(*request, limits_, snapshot->catalogue(), absl::Now()));
    return StartSessionWork(call, [this, query = std::move(query), response]() -> absl::Status {
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
    return StartSessionWork(call, [this, user = request->user_id(), response]() -> absl::Status {
      NESTREC_RETURN_IF_ERROR(nestrec::ForgetUser(*sessions_.manager, user, *response));
      if (sessions_.recorder != nullptr) sessions_.recorder->Forgotten(user);
      return absl::OkStatus();
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
