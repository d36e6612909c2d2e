#include "server/recommend_service.h"

#include <chrono>
#include <utility>

#include "absl/time/clock.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "server/proto_time.h"
#include "server/recommend_engine.h"
#include "server/responses.h"
#include "server/rpc_status.h"
#include "server/session_requests.h"

namespace nestrec {
namespace {

// The call's deadline on the steady clock. gRPC gives it on the wall clock; no deadline is the far
// future there.
Instant SteadyDeadline(const grpc::CallbackServerContext& context, Instant now) {
  const auto left = context.deadline() - std::chrono::system_clock::now();
  const auto longest = std::chrono::hours(24);
  return left > longest ? Instant::max()
                        : now + std::chrono::duration_cast<Instant::duration>(left);
}

// One call's end of the conversation; deletes itself when gRPC has sent the answer.
class Reactor final : public grpc::ServerUnaryReactor {
 public:
  // `calls` is null for a call that is refused without having begun.
  explicit Reactor(CallTracker* calls) : calls_(calls) {}
  void OnDone() override {
    if (calls_ != nullptr) {
      calls_->End();
    }
    delete this;
  }

 private:
  CallTracker* const calls_;
};

// Begins a call whose body either returns an error, which is sent, or ok, which means what
// `finish_ok` says.
template <typename Body>
grpc::ServerUnaryReactor* BeginCall(CallTracker* calls, bool finish_ok, Body&& body) {
  const bool begun = calls->Begin();
  auto* reactor = new Reactor(begun ? calls : nullptr);
  const absl::Status status = begun ? Guard("handling a call", [&] { return body(reactor); })
                                    : absl::UnavailableError("the server is shutting down");
  if (finish_ok || !status.ok()) {
    reactor->Finish(ToGrpcStatus(status));
  }
  return reactor;
}

// `context` and `response` live until the call is finished, which is what Answer and Fail do.
class Call final : public RecommendCall {
 public:
  Call(grpc::CallbackServerContext* context, v1::RecommendResponse* response,
       grpc::ServerUnaryReactor* reactor, const Clock* clock)
      : context_(context), response_(response), reactor_(reactor), clock_(clock) {}

  bool Cancelled() const override { return context_->IsCancelled(); }
  void Answer(const Answered& answered) override {
    reactor_->Finish(ToGrpcStatus(Guard("answering", [&] {
      FillResponse(*snapshot, query, answered.width, answered.recommendation, answered.queued,
                   *response_);
      *response_->mutable_served()->mutable_timings()->mutable_total() =
          ToProto(Between(arrived, (*clock_)()));
      return absl::OkStatus();
    })));
  }
  void Fail(const absl::Status& why) override { reactor_->Finish(ToGrpcStatus(why)); }

 private:
  grpc::CallbackServerContext* const context_;
  v1::RecommendResponse* const response_;
  grpc::ServerUnaryReactor* const reactor_;
  const Clock* const clock_;
};

}  // namespace

RecommendServiceImpl::RecommendServiceImpl(std::shared_ptr<const Snapshot> snapshot,
                                           RequestLimits limits, CallTracker* calls,
                                           RecommendEngine* engine, SessionParts sessions,
                                           Clock clock)
    : snapshot_(std::move(snapshot)),
      limits_(limits),
      calls_(calls),
      engine_(engine),
      sessions_(sessions),
      clock_(std::move(clock)) {}

grpc::ServerUnaryReactor* RecommendServiceImpl::Recommend(grpc::CallbackServerContext* context,
                                                          const v1::RecommendRequest* request,
                                                          v1::RecommendResponse* response) {
  // The engine finishes what Start could queue.
  return BeginCall(calls_, /*finish_ok=*/false, [&](grpc::ServerUnaryReactor* reactor) {
    return Start(context, *request, response, reactor);
  });
}

absl::Status RecommendServiceImpl::Start(grpc::CallbackServerContext* context,
                                         const v1::RecommendRequest& request,
                                         v1::RecommendResponse* response,
                                         grpc::ServerUnaryReactor* reactor) {
  auto call = std::make_unique<Call>(context, response, reactor, &clock_);
  call->arrived = clock_();
  call->snapshot = snapshot_;
  call->deadline = SteadyDeadline(*context, call->arrived);
  NESTREC_ASSIGN_OR_RETURN(call->query, ValidateRecommend(request, limits_, snapshot_->catalogue(),
                                                          snapshot_->attributes()));
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
       .cancelled = [context] { return context->IsCancelled(); },
       .run =
           [this, reactor, waiting = std::make_shared<std::unique_ptr<Call>>(std::move(call))](
               Instant /*started*/) {
             const absl::Status status = Guard("reading a session", [&]() -> absl::Status {
               NESTREC_RETURN_IF_ERROR(ReadSession(
                   *sessions_.manager, (*waiting)->snapshot->catalogue(), (*waiting)->query));
               return engine_->Submit(std::move(*waiting));
             });
             if (!status.ok()) {
               reactor->Finish(ToGrpcStatus(status));
             }
           },
       .drop = [reactor](const absl::Status& why) { reactor->Finish(ToGrpcStatus(why)); }});
}

absl::Status RecommendServiceImpl::StartSessionWork(grpc::CallbackServerContext* context,
                                                    grpc::ServerUnaryReactor* reactor,
                                                    std::function<absl::Status()> work) {
  return sessions_.workers->Submit(
      {.deadline = SteadyDeadline(*context, clock_()),
       .cancelled = [context] { return context->IsCancelled(); },
       .run =
           [work = std::move(work), reactor](Instant /*started*/) {
             reactor->Finish(ToGrpcStatus(Guard("keeping a session", work)));
           },
       .drop = [reactor](const absl::Status& why) { reactor->Finish(ToGrpcStatus(why)); }});
}

grpc::ServerUnaryReactor* RecommendServiceImpl::RecordEvents(grpc::CallbackServerContext* context,
                                                             const v1::RecordEventsRequest* request,
                                                             v1::RecordEventsResponse* response) {
  return BeginCall(
      calls_, /*finish_ok=*/false, [&](grpc::ServerUnaryReactor* reactor) -> absl::Status {
        if (sessions_.manager == nullptr) {
          return NoSessionsError();
        }
        NESTREC_ASSIGN_OR_RETURN(
            RecordQuery query,
            ValidateRecordEvents(*request, limits_, snapshot_->catalogue(), absl::Now()));
        return StartSessionWork(context, reactor, [this, query = std::move(query), response] {
          return nestrec::RecordEvents(*sessions_.manager, query, *response);
        });
      });
}

grpc::ServerUnaryReactor* RecommendServiceImpl::ForgetUser(grpc::CallbackServerContext* context,
                                                           const v1::ForgetUserRequest* request,
                                                           v1::ForgetUserResponse* response) {
  return BeginCall(
      calls_, /*finish_ok=*/false, [&](grpc::ServerUnaryReactor* reactor) -> absl::Status {
        if (sessions_.manager == nullptr) {
          return NoSessionsError();
        }
        NESTREC_RETURN_IF_ERROR(ValidateForgetUser(*request, limits_));
        return StartSessionWork(context, reactor, [this, user = request->user_id(), response] {
          return nestrec::ForgetUser(*sessions_.manager, user, *response);
        });
      });
}

grpc::ServerUnaryReactor* RecommendServiceImpl::GetModelInfo(
    grpc::CallbackServerContext* /*context*/, const v1::GetModelInfoRequest* /*request*/,
    v1::GetModelInfoResponse* response) {
  return BeginCall(calls_, /*finish_ok=*/true, [&](grpc::ServerUnaryReactor* /*reactor*/) {
    FillModelInfo(*snapshot_, limits_.max_k, *response);
    return absl::OkStatus();
  });
}

}  // namespace nestrec
