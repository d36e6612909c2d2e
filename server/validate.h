// From a request as it came to a query in native types that the rest of the server can trust.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "index/attribute_view.h"
#include "index/diversity.h"
#include "index/predicate.h"
#include "nestrec/v1/recommend.pb.h"
#include "server/filter_reader.h"
#include "server/live/item_view.h"
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
  int max_batch_requests = 100;  // of one BatchRecommend, and over all of its requests:
  int64_t max_batch_ids = 100'000;
  int64_t max_batch_items = 10'000;  // sum of k
  int max_batch_explained = 10;      // requests with explain
  int64_t max_explained_k = 100;     // of a request with explain
  int max_upserts = 1000;            // items of one UpsertItems or RemoveItems
  size_t max_record_bytes = 65'536;
  int max_modalities = 16;
};

// Items that come back where a request does not say how many.
inline constexpr uint32_t kDefaultK = 10;

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
  std::optional<int32_t> similar_to;      // items like this one; then there is no history
  bool vector_only = false;               // the history's vector, and no items
  bool include_seen = false;
  std::vector<int32_t> excluded;  // what must not come back; may repeat
  int64_t k = 0;                  // 0 with vector_only alone
  WidthRequest width;
  std::optional<std::vector<int32_t>> only;  // nothing else may come back; may repeat
  std::optional<float> min_score;
  std::optional<Predicate> filter;
  std::vector<GroupCap> caps;
  std::optional<DiversityQuery> diversity;
  std::vector<std::string> fields;
  bool explain = false;
  UnknownIds unknown_history;
  UnknownIds unknown_excluded;
  UnknownIds unknown_only;
};

// kInvalidArgument with a violation for every bad field (of a list, for its first bad element).
// `attributes` are the items'.
absl::StatusOr<RecommendQuery> ValidateRecommend(const v1::RecommendRequest& request,
                                                 const RequestLimits& limits, const ItemView& items,
                                                 const AttributeView& attributes);

// The same. Without return_seen nothing counts as seen; with it, `excluded` is what the query has
// seen.
absl::StatusOr<RecommendQuery> ValidateEncode(const v1::EncodeRequest& request,
                                              const RequestLimits& limits, const ItemView& items);

// As ValidateRecommend; kNotFound where the item is not among those that may come back.
absl::StatusOr<RecommendQuery> ValidateSimilarItems(const v1::SimilarItemsRequest& request,
                                                    const RequestLimits& limits,
                                                    const ItemView& items,
                                                    const AttributeView& attributes);

}  // namespace nestrec
