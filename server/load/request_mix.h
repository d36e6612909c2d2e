// The calls of a load test, made before it so that sending one costs little.
//
// Thread safety: pure functions, but for FillSessions and ForgetSessions, which call the server.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/random.h"
#include "server/client.h"

namespace nestrec {

using ItemIds = std::vector<std::string>;

// A call as it goes over the wire.
struct LoadRequest {
  enum class Rpc { kRecommend, kGetModelInfo };
  Rpc rpc = Rpc::kRecommend;
  std::string bytes;  // the serialised request
};

struct RequestMix {
  LoadRequest::Rpc rpc = LoadRequest::Rpc::kRecommend;
  std::optional<uint32_t> k;
  std::optional<int> dim;
  std::optional<std::string> tier;
  std::optional<absl::Duration> latency_budget;
  std::optional<double> min_quality;
  bool sessions = false;  // ask by user id instead of by history
};

// `count` histories of `length` items each, drawn from `items` uniformly. REQUIRES: !items.empty().
std::vector<ItemIds> SampleHistories(const ItemIds& items, int64_t count, int64_t length,
                                     Random& random);

// One request for each history, or for its user. GetModelInfo is the same request each time.
std::vector<LoadRequest> MakeRequests(const RequestMix& mix, const std::vector<ItemIds>& histories);

// The user whose session holds histories[i].
std::string LoadUser(size_t i);
// Makes the session of each history's user anew. Errors of the calls.
absl::Status FillSessions(const RecommendClient& client, const std::vector<ItemIds>& histories);
absl::Status ForgetSessions(const RecommendClient& client, size_t users);

// Ids of a server's catalogue, as many as one call gives: the best for an empty history.
absl::StatusOr<ItemIds> ItemsOfServer(const RecommendClient& client,
                                      const v1::GetModelInfoResponse& info);

}  // namespace nestrec
