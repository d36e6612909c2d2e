#include "server/recommend_service.h"

#include <chrono>
#include <utility>

#include "absl/time/clock.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "server/policy.h"
#include "server/proto_time.h"
#include "server/recommender.h"
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

struct Job {
  RecommendQuery query;
  WidthDecision width;
  std::shared_ptr<const Snapshot> snapshot;
  Instant arrived;
};

}  // namespace

RecommendServiceImpl::RecommendServiceImpl(std::shared_ptr<const Snapshot> snapshot,
                                           RequestLimits limits, CallTracker* calls,
                                           WorkerPool* workers, SessionParts sessions, Clock clock)
    : snapshot_(std::move(snapshot)),
      limits_(limits),
      calls_(calls),
      workers_(workers),
      sessions_(sessions),
      clock_(std::move(clock)) {}

grpc::ServerUnaryReactor* RecommendServiceImpl::Recommend(grpc::CallbackServerContext* context,
                                                          const v1::RecommendRequest* request,
                                                          v1::RecommendResponse* response) {
  // A worker finishes what Start could queue.
  return BeginCall(calls_, /*finish_ok=*/false, [&](grpc::ServerUnaryReactor* reactor) {
    return Start(context, *request, response, reactor);
  });
}

absl::Status RecommendServiceImpl::Start(grpc::CallbackServerContext* context,
                                         const v1::RecommendRequest& request,
                                         v1::RecommendResponse* response,
                                         grpc::ServerUnaryReactor* reactor) {
  auto job = std::make_shared<Job>();
  job->arrived = clock_();
  job->snapshot = snapshot_;
  NESTREC_ASSIGN_OR_RETURN(job->query, ValidateRecommend(request, limits_, snapshot_->catalogue(),
                                                         snapshot_->attributes()));
  NESTREC_ASSIGN_OR_RETURN(job->width,
                           ChooseWidth(job->query.width, snapshot_->tiers(), snapshot_->sizes()));

  if (!job->query.user_id.empty() && sessions_.manager == nullptr) {
    return NoSessionsError();
  }

  const auto run = [this, job, response, reactor](Instant started) {
    const absl::Status status = Guard("recommending", [&]() -> absl::Status {
      if (!job->query.user_id.empty()) {
        NESTREC_RETURN_IF_ERROR(
            ReadSession(*sessions_.manager, job->snapshot->catalogue(), job->query));
      }
      NESTREC_ASSIGN_OR_RETURN(
          const Recommendation recommendation,
          nestrec::Recommend(*job->snapshot, job->query, job->width, clock_, sessions_.manager));
      FillResponse(*job->snapshot, job->query, job->width, recommendation,
                   Between(job->arrived, started), *response);
      *response->mutable_served()->mutable_timings()->mutable_total() =
          ToProto(Between(job->arrived, clock_()));
      return absl::OkStatus();
    });
    reactor->Finish(ToGrpcStatus(status));
  };
  // `context` and `response` live until the call is finished, which is what run and drop do.
  const WorkerPool::Task task = {
      .deadline = SteadyDeadline(*context, job->arrived),
      .cancelled = [context] { return context->IsCancelled(); },
      .run = run,
      .drop = [reactor](const absl::Status& why) { reactor->Finish(ToGrpcStatus(why)); }};
  if (job->query.user_id.empty() || !sessions_.manager->log().remote()) {
    return workers_->Submit(task);
  }
  // The model's threads do not wait for a network.
  WorkerPool::Task read = task;
  read.run = [this, job, task, reactor](Instant /*started*/) {
    const absl::Status status = Guard("reading a session", [&]() -> absl::Status {
      NESTREC_RETURN_IF_ERROR(
          ReadSession(*sessions_.manager, job->snapshot->catalogue(), job->query));
      return workers_->Submit(task);
    });
    if (!status.ok()) {
      reactor->Finish(ToGrpcStatus(status));
    }
  };
  return sessions_.workers->Submit(std::move(read));
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
