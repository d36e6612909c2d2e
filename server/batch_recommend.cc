#include "server/batch_recommend.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "server/rpc_status.h"
#include "server/status_details.h"

namespace nestrec {
namespace {

// The requests that are not done yet. Each writes to its own result alone.
class RunningBatch {
 public:
  RunningBatch(UnaryCall* call, v1::BatchRecommendResponse* response, int requests)
      : call_(call),
        response_(response),
        details_(static_cast<size_t>(requests)),
        running_(requests + 1) {}

  bool Cancelled() const { return call_->Cancelled(); }
  // For the request's own use until it is done.
  CallDetails* details(int index) { return &details_[static_cast<size_t>(index)]; }
  void Done(int index, const absl::Status& status) {
    if (!status.ok()) {
      *response_->mutable_results(index)->mutable_error() = ToProto(status);
    }
    Leave();
  }
  // What a request, or whoever starts them, does last. Releases what it has written to whoever ends
  // the call.
  void Leave() {
    if (running_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    const auto took = [](const CallDetails& one) { return one.queued + one.encode + one.search; };
    call_->details() = *std::max_element(
        details_.begin(), details_.end(),
        [&](const CallDetails& a, const CallDetails& b) { return took(a) < took(b); });
    call_->details().requests = static_cast<int64_t>(details_.size());
    call_->End(absl::OkStatus());
  }

 private:
  UnaryCall* const call_;
  v1::BatchRecommendResponse* const response_;
  std::vector<CallDetails> details_;  // [requests]
  std::atomic<int> running_;
};

}  // namespace

absl::Status CheckBatch(const v1::BatchRecommendRequest& request, const RequestLimits& limits) {
  std::vector<FieldViolation> violations;
  const auto add = [&](const std::string& description) {
    violations.push_back({.field = "requests", .description = description});
  };
  if (request.requests().empty() || request.requests_size() > limits.max_batch_requests) {
    add(absl::StrCat(request.requests_size(), " entries; 1 to ", limits.max_batch_requests,
                     " are allowed", request.requests().empty() ? "" : "; send them in parts"));
  }
  int64_t ids = 0;
  int64_t items = 0;
  int explained = 0;
  for (const v1::RecommendRequest& one : request.requests()) {
    ids += int64_t{one.history_item_ids_size()} + one.exclude_item_ids_size() +
           one.only_item_ids_size();
    explained += one.explain() ? 1 : 0;
    items += std::min<int64_t>(one.has_k() ? one.k() : kDefaultK, limits.max_k);
  }
  if (ids > limits.max_batch_ids) {
    add(absl::StrCat("have ", ids, " item ids together; at most ", limits.max_batch_ids,
                     " are allowed; send fewer requests at once"));
  }
  if (items > limits.max_batch_items) {
    add(absl::StrCat("ask for ", items, " items together (k); at most ", limits.max_batch_items,
                     " are allowed; send fewer requests at once"));
  }
  if (explained > limits.max_batch_explained) {
    add(absl::StrCat(explained, " of them with explain; at most ", limits.max_batch_explained,
                     " are allowed; send them in parts"));
  }
  return violations.empty() ? absl::OkStatus() : BadRequest(violations);
}

void StartBatch(const RecommendStarter& starter, UnaryCall* call,
                const v1::BatchRecommendRequest& request, v1::BatchRecommendResponse* response) {
  const int requests = request.requests_size();
  // All of them before the first is answered: the list must not move any more.
  for (int i = 0; i < requests; ++i) response->add_results();
  const auto batch = std::make_shared<RunningBatch>(call, response, requests);
  const Instant arrived = call->info().arrived;
  const Instant deadline = call->info().deadline;
  const std::string request_id = call->info().request_id;
  for (int i = 0; i < requests; ++i) {
    const absl::Status status = Guard("starting a request", [&] {
      return starter.Start(request.requests(i), response->mutable_results(i)->mutable_response(),
                           {.cancelled = [batch] { return batch->Cancelled(); },
                            .done = [batch, i](const absl::Status& done) { batch->Done(i, done); },
                            .arrived = arrived,
                            .deadline = deadline,
                            .request_id = request_id,
                            .details = batch->details(i)});
    });
    if (!status.ok()) batch->Done(i, status);
  }
  batch->Leave();
}

}  // namespace nestrec
