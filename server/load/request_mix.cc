#include "server/load/request_mix.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/proto_time.h"

namespace nestrec {
namespace {

v1::RecommendRequest RequestOf(const RequestMix& mix) {
  v1::RecommendRequest request;
  if (mix.k.has_value()) request.set_k(*mix.k);
  if (mix.dim.has_value()) request.set_dim(*mix.dim);
  if (mix.tier.has_value()) request.set_tier(*mix.tier);
  if (mix.latency_budget.has_value()) {
    *request.mutable_latency_budget() = ToProto(*mix.latency_budget);
  }
  if (mix.min_quality.has_value()) request.set_min_quality(*mix.min_quality);
  return request;
}

}  // namespace

std::vector<ItemIds> SampleHistories(const ItemIds& items, int64_t count, int64_t length,
                                     Random& random) {
  std::vector<ItemIds> histories(static_cast<size_t>(count));
  for (ItemIds& history : histories) {
    for (int64_t i = 0; i < length; ++i) {
      history.push_back(
          items[static_cast<size_t>(random.Index(static_cast<int64_t>(items.size())))]);
    }
  }
  return histories;
}

std::vector<LoadRequest> MakeRequests(const RequestMix& mix,
                                      const std::vector<ItemIds>& histories) {
  if (mix.rpc == LoadRequest::Rpc::kGetModelInfo) {
    return {{.rpc = mix.rpc, .bytes = v1::GetModelInfoRequest().SerializeAsString()}};
  }
  std::vector<LoadRequest> requests;
  v1::RecommendRequest request = RequestOf(mix);
  for (size_t i = 0; i < histories.size(); ++i) {
    if (mix.sessions) {
      request.set_user_id(LoadUser(i));
    } else {
      request.mutable_history_item_ids()->Assign(histories[i].begin(), histories[i].end());
    }
    requests.push_back({.rpc = mix.rpc, .bytes = request.SerializeAsString()});
  }
  return requests;
}

std::string LoadUser(size_t i) { return absl::StrCat("bench-load-", i); }

absl::Status FillSessions(const RecommendClient& client, const std::vector<ItemIds>& histories) {
  NESTREC_RETURN_IF_ERROR(ForgetSessions(client, histories.size()));
  for (size_t i = 0; i < histories.size(); ++i) {
    if (histories[i].empty()) continue;
    v1::RecordEventsRequest request;
    request.set_user_id(LoadUser(i));
    request.mutable_item_ids()->Assign(histories[i].begin(), histories[i].end());
    NESTREC_RETURN_IF_ERROR(client.RecordEvents(request).status());
  }
  return absl::OkStatus();
}

absl::Status ForgetSessions(const RecommendClient& client, size_t users) {
  for (size_t i = 0; i < users; ++i) {
    v1::ForgetUserRequest request;
    request.set_user_id(LoadUser(i));
    NESTREC_RETURN_IF_ERROR(client.ForgetUser(request).status());
  }
  return absl::OkStatus();
}

absl::StatusOr<ItemIds> ItemsOfServer(const RecommendClient& client,
                                      const v1::GetModelInfoResponse& info) {
  v1::RecommendRequest request;
  uint32_t k = 1;
  for (const v1::TierInfo& tier : info.tiers()) {
    if (static_cast<uint32_t>(std::max(0, tier.max_k())) > k) {
      k = static_cast<uint32_t>(tier.max_k());
      request.set_tier(tier.name());
    }
  }
  request.set_k(k);
  NESTREC_ASSIGN_OR_RETURN(const v1::RecommendResponse response, client.Recommend(request));
  ItemIds items;
  for (const v1::RecommendedItem& item : response.items()) items.push_back(item.item_id());
  if (items.empty()) return absl::FailedPreconditionError("the server has no items to ask with");
  return items;
}

}  // namespace nestrec
