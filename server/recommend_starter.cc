#include "server/recommend_starter.h"

#include <memory>
#include <utility>

#include "base/guard.h"
#include "base/status_macros.h"
#include "server/proto_time.h"
#include "server/responses.h"
#include "server/session_requests.h"

namespace nestrec {
namespace {

absl::Status CheckIntact(const Snapshot& snapshot) {
  if (snapshot.intact()) return absl::OkStatus();
  return absl::UnavailableError(
      "the file of the model that serves, or of an index of it, was changed in place or cannot be "
      "read; the server loads it again, or another version");
}

template <typename Response>
class Call final : public RecommendCall {
 public:
  // `sessions` may be null.
  Call(Response* response, RecommendTarget target, const Clock* clock,
       const SessionManager* sessions)
      : response_(response), target_(std::move(target)), clock_(clock), sessions_(sessions) {
    arrived = target_.arrived;
    deadline = target_.deadline;
    request_id = target_.request_id;
  }

  bool Cancelled() const override { return target_.cancelled(); }
  void Answer(const Answered& answered) override {
    if (target_.details != nullptr) {
      CallDetails& details = *target_.details;
      details.dim = answered.width.dim;
      details.tier = answered.width.tier;
      details.why = WidthReasonName(answered.width.why);
      details.history = static_cast<int64_t>(
          query.history.size() + (query.session.has_value() ? query.session->items.size() : 0));
      details.queued = answered.queued;
      details.encode = answered.recommendation.encode;
      details.search = answered.recommendation.search;
      if (query.session.has_value()) {
        details.session_bytes = static_cast<int64_t>(sessions_->BytesOf(query.user_id));
      }
    }
    target_.done(Guard("answering", [&] {
      FillResponse(*snapshot, query, answered.width, answered.recommendation, answered.queued,
                   *response_);
      *response_->mutable_served()->mutable_timings()->mutable_total() =
          ToProto(Between(arrived, (*clock_)()));
      // Asked when all has been read.
      return CheckIntact(*snapshot);
    }));
  }
  void Fail(const absl::Status& why) override { target_.done(why); }

  const RecommendTarget& target() const { return target_; }

 private:
  Response* const response_;
  const RecommendTarget target_;
  const Clock* const clock_;
  const SessionManager* const sessions_;
};

absl::Status EncodesOnlyError() {
  return absl::FailedPreconditionError(
      "this server makes vectors alone (--encode-only); call Encode, or ask a server that has "
      "items");
}

}  // namespace

RecommendStarter::RecommendStarter(const SnapshotSource* snapshots, const RequestLimits& limits,
                                   RecommendEngine* engine, SessionParts sessions, Clock clock)
    : snapshots_(snapshots),
      limits_(limits),
      engine_(engine),
      sessions_(sessions),
      clock_(std::move(clock)) {}

template <typename Call>
absl::Status RecommendStarter::Queue(std::unique_ptr<Call> call) const {
  if (!call->query.user_id.empty() && sessions_.manager == nullptr) {
    return NoSessionsError();
  }
  if (call->query.user_id.empty() || !sessions_.manager->log().remote()) {
    return engine_->Submit(std::move(call));
  }
  // The model's threads do not wait for a network.
  const Instant deadline = call->deadline;
  auto waiting = std::make_shared<std::unique_ptr<Call>>(std::move(call));
  return sessions_.workers->Submit(
      {.deadline = deadline,
       .cancelled = [waiting] { return (*waiting)->Cancelled(); },
       .run =
           [this, waiting](Instant /*started*/) {
             // Submit takes the call even where it refuses it.
             Call* const read = waiting->get();
             absl::Status status = Guard("reading a session", [&] {
               return ReadSession(*sessions_.manager, *read->items, read->query);
             });
             if (!status.ok()) return read->Fail(status);
             const RecommendTarget target = read->target();
             status = Guard("queueing", [&] { return engine_->Submit(std::move(*waiting)); });
             if (!status.ok()) target.done(status);
           },
       .drop = [waiting](const absl::Status& why) { (*waiting)->Fail(why); }});
}

absl::Status RecommendStarter::Start(const v1::SimilarItemsRequest& request,
                                     v1::SimilarItemsResponse* response,
                                     RecommendTarget target) const {
  auto call = std::make_unique<Call<v1::SimilarItemsResponse>>(response, std::move(target), &clock_,
                                                               sessions_.manager);
  call->snapshot = snapshots_->Stable();
  NESTREC_RETURN_IF_ERROR(CheckIntact(*call->snapshot));
  if (!call->snapshot->searches()) return EncodesOnlyError();
  call->items = call->snapshot->items();
  NESTREC_ASSIGN_OR_RETURN(
      call->query, ValidateSimilarItems(request, limits_, *call->items,
                                        {call->snapshot->attributes(), call->items->attributes()}));
  if (call->target().details != nullptr) call->target().details->k = call->query.k;
  return engine_->Submit(std::move(call));
}

absl::Status RecommendStarter::Start(const v1::RecommendRequest& request,
                                     v1::RecommendResponse* response,
                                     RecommendTarget target) const {
  auto call = std::make_unique<Call<v1::RecommendResponse>>(response, std::move(target), &clock_,
                                                            sessions_.manager);
  call->snapshot = snapshots_->For(request.user_id());
  NESTREC_RETURN_IF_ERROR(CheckIntact(*call->snapshot));
  if (!call->snapshot->searches()) return EncodesOnlyError();
  call->items = call->snapshot->items();
  NESTREC_ASSIGN_OR_RETURN(
      call->query, ValidateRecommend(request, limits_, *call->items,
                                     {call->snapshot->attributes(), call->items->attributes()}));
  if (CallDetails* const details = call->target().details) {
    details->k = call->query.k;
    details->history = static_cast<int64_t>(call->query.history.size());
  }
  return Queue(std::move(call));
}

absl::Status RecommendStarter::Start(const v1::EncodeRequest& request, v1::EncodeResponse* response,
                                     RecommendTarget target) const {
  auto call = std::make_unique<Call<v1::EncodeResponse>>(response, std::move(target), &clock_,
                                                         sessions_.manager);
  call->snapshot = snapshots_->For(request.user_id());
  NESTREC_RETURN_IF_ERROR(CheckIntact(*call->snapshot));
  call->items = call->snapshot->items();
  NESTREC_ASSIGN_OR_RETURN(call->query, ValidateEncode(request, limits_, *call->items));
  return Queue(std::move(call));
}

}  // namespace nestrec
