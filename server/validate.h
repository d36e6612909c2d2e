// From a request as it came to a query in native types that the rest of the server can trust.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "index/attributes.h"
#include "index/diversity.h"
#include "index/predicate.h"
#include "model/catalogue.h"
#include "nestrec/v1/recommend.pb.h"
#include "server/filter_reader.h"
#include "server/policy.h"
#include "server/session/session_manager.h"

namespace nestrec {

// What a request may ask for. proto/nestrec/v1/recommend.proto documents the defaults.
struct RequestLimits {
  int64_t max_k = 1000;
  int max_history = 10'000;   // ids
  int max_excluded = 10'000;  // ids
  int max_only = 10'000;      // ids
  size_t max_id_bytes = 256;
  int max_fields = 16;
  size_t max_field_bytes = 64;
  size_t max_tier_bytes = 64;
  size_t max_user_id_bytes = 256;
  int max_events = 1000;  // of one RecordEvents
  size_t max_event_id_bytes = 128;
  FilterLimits filter;
};

// Ids that the catalogue does not have.
struct UnknownIds {
  static constexpr size_t kReported = 100;
  std::vector<std::string>
      ids;            // the first kReported different ones, in the order in which they came
  int64_t count = 0;  // of different ones
};

struct RecommendQuery {
  std::string user_id;                    // empty: none
  std::optional<SessionHistory> session;  // of the user, once it was read
  std::vector<int32_t> history;           // item numbers, oldest first, unknown ones left out
  bool include_seen = false;
  std::vector<int32_t> excluded;  // what must not come back; may repeat
  int64_t k = 0;
  WidthRequest width;
  std::optional<std::vector<int32_t>> only;  // nothing else may come back; may repeat
  std::optional<float> min_score;
  std::optional<Predicate> filter;
  std::vector<GroupCap> caps;
  std::optional<DiversityQuery> diversity;
  std::vector<std::string> fields;
  UnknownIds unknown_history;
  UnknownIds unknown_excluded;
  UnknownIds unknown_only;
};

// kInvalidArgument with a violation for every bad field (of a list, for its first bad element).
// `attributes` are the catalogue's; the query's field ids are theirs.
absl::StatusOr<RecommendQuery> ValidateRecommend(const v1::RecommendRequest& request,
                                                 const RequestLimits& limits,
                                                 const Catalogue& catalogue,
                                                 const AttributeTable& attributes);

}  // namespace nestrec
