#include "server/validate.h"

#include <cmath>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/printable.h"
#include "server/proto_time.h"
#include "server/status_details.h"

namespace nestrec {
namespace {

constexpr char kDefaultField[] = "title";

using StringList = google::protobuf::RepeatedPtrField<std::string>;

// The first thing that is wrong with a list of short strings.
std::optional<FieldViolation> CheckStrings(const StringList& list, absl::string_view field,
                                           int max_count, size_t max_bytes,
                                           absl::string_view cure) {
  if (list.size() > max_count) {
    return FieldViolation{std::string(field), absl::StrCat(list.size(), " entries; at most ",
                                                           max_count, " are allowed", cure)};
  }
  for (int i = 0; i < list.size(); ++i) {
    if (list[i].empty()) {
      return FieldViolation{absl::StrCat(field, "[", i, "]"), "is empty"};
    }
    if (list[i].size() > max_bytes) {
      return FieldViolation{
          absl::StrCat(field, "[", i, "]"),
          absl::StrCat("has ", list[i].size(), " bytes; at most ", max_bytes, " are allowed")};
    }
  }
  return std::nullopt;
}

std::optional<FieldViolation> CheckBudget(const google::protobuf::Duration& budget) {
  // As google.protobuf.Duration defines itself: no sum of a valid one leaves absl::Duration.
  constexpr int64_t kMostSeconds = 315'576'000'000;
  constexpr int32_t kMostNanos = 999'999'999;
  const bool valid = budget.seconds() >= 0 && budget.seconds() <= kMostSeconds &&
                     budget.nanos() >= 0 && budget.nanos() <= kMostNanos &&
                     (budget.seconds() > 0 || budget.nanos() > 0);
  if (valid) {
    return std::nullopt;
  }
  return FieldViolation{"latency_budget", absl::StrCat(budget.seconds(), " s and ", budget.nanos(),
                                                       " ns; a valid duration above 0 is needed")};
}

// The numbers of the ids that are known, in their order.
std::vector<int32_t> Resolve(const StringList& ids, const ItemView& items, UnknownIds& unknown) {
  std::vector<int32_t> numbers;
  numbers.reserve(static_cast<size_t>(ids.size()));
  absl::flat_hash_set<absl::string_view> unknown_ids;
  for (const std::string& id : ids) {
    if (const std::optional<int32_t> number = items.Find(id)) {
      numbers.push_back(*number);
    } else if (unknown_ids.insert(id).second) {
      ++unknown.count;
      if (unknown.ids.size() < UnknownIds::kReported) {
        unknown.ids.push_back(id);
      }
    }
  }
  return numbers;
}

// What all requests have in common: how wide.
template <typename Request>
void CheckWidth(const Request& request, const RequestLimits& limits,
                std::vector<FieldViolation>& violations) {
  if (request.width_case() == Request::kTier && request.tier().size() > limits.max_tier_bytes) {
    violations.push_back({"tier", absl::StrCat("has ", request.tier().size(), " bytes; at most ",
                                               limits.max_tier_bytes, " are allowed")});
  }
  if (request.has_latency_budget()) {
    if (auto violation = CheckBudget(request.latency_budget())) {
      violations.push_back(*std::move(violation));
    }
  }
}

// REQUIRES: CheckWidth found nothing.
template <typename Request>
void ReadWidth(const Request& request, WidthRequest& width) {
  if (request.width_case() == Request::kDim) {
    width.dim = request.dim();
  } else if (request.width_case() == Request::kTier) {
    width.tier = request.tier();
  }
  if (request.has_latency_budget()) {
    width.latency_budget = FromProto(request.latency_budget());
  }
}

// What requests about a history have in common: whose it is, and what its quality shall be.
template <typename Request>
void CheckHistory(const Request& request, const RequestLimits& limits,
                  std::vector<FieldViolation>& violations) {
  if (auto violation = CheckStrings(request.history_item_ids(), "history_item_ids",
                                    limits.max_history, limits.max_id_bytes, "; send the newest")) {
    violations.push_back(*std::move(violation));
  }
  if (request.user_id().size() > limits.max_user_id_bytes) {
    violations.push_back(
        {"user_id", absl::StrCat("has ", request.user_id().size(), " bytes; at most ",
                                 limits.max_user_id_bytes, " are allowed")});
  }
  if (request.has_min_quality() && !(request.min_quality() >= 0 && request.min_quality() <= 1)) {
    violations.push_back({"min_quality", absl::StrCat(request.min_quality(), " is not in 0 to 1")});
  }
}

// REQUIRES: CheckHistory found nothing, query.include_seen is set.
template <typename Request>
void ReadHistory(const Request& request, const ItemView& items, RecommendQuery& query) {
  query.user_id = request.user_id();
  query.history = Resolve(request.history_item_ids(), items, query.unknown_history);
  if (!query.include_seen) {
    query.excluded.insert(query.excluded.end(), query.history.begin(), query.history.end());
  }
  if (request.has_min_quality()) {
    query.width.min_quality = request.min_quality();
  }
}

// What requests that return items have in common: how many, how wide, which ones. What is right of
// filter, caps and diversity goes into `query`.
template <typename Request>
void CheckSelection(const Request& request, const RequestLimits& limits,
                    const AttributeView& attributes, RecommendQuery& query,
                    std::vector<FieldViolation>& violations) {
  const auto add = [&](std::optional<FieldViolation> violation) {
    if (violation.has_value()) {
      violations.push_back(*std::move(violation));
    }
  };
  query.k = request.has_k() ? request.k() : kDefaultK;
  const bool k_is_good = query.k >= 1 && query.k <= limits.max_k;
  if (request.has_k() && !k_is_good) {
    violations.push_back({"k", absl::StrCat(request.k(), " is not in 1 to ", limits.max_k)});
  }
  CheckWidth(request, limits, violations);
  add(CheckStrings(request.exclude_item_ids(), "exclude_item_ids", limits.max_excluded,
                   limits.max_id_bytes, ""));
  if (request.has_min_score() && !std::isfinite(request.min_score())) {
    violations.push_back(
        {"min_score", absl::StrCat(request.min_score(), " is not a finite number")});
  }
  if (request.has_filter()) {
    query.filter = ReadFilter(request.filter(), limits.filter, attributes, violations);
  }
  add(CheckStrings(request.only_item_ids(), "only_item_ids", limits.max_only, limits.max_id_bytes,
                   "; use a filter"));
  query.caps = ReadCaps(request.caps(), limits.filter, attributes, violations);
  if (request.has_diversity() && k_is_good) {
    query.diversity = ReadDiversity(request.diversity(), query.k, limits.filter, violations);
  }
  add(CheckStrings(request.fields(), "fields", limits.max_fields, limits.max_field_bytes, ""));
}

// REQUIRES: CheckSelection found nothing.
template <typename Request>
void ReadSelection(const Request& request, const ItemView& items, RecommendQuery& query) {
  query.excluded = Resolve(request.exclude_item_ids(), items, query.unknown_excluded);
  if (!request.only_item_ids().empty()) {
    query.only = Resolve(request.only_item_ids(), items, query.unknown_only);
  }
  ReadWidth(request, query.width);
  if (request.has_min_score()) {
    query.min_score = request.min_score();
  }
  query.fields.assign(request.fields().begin(), request.fields().end());
  if (query.fields.empty()) {
    query.fields.push_back(kDefaultField);
  }
}

}  // namespace

absl::StatusOr<RecommendQuery> ValidateRecommend(const v1::RecommendRequest& request,
                                                 const RequestLimits& limits, const ItemView& items,
                                                 const AttributeView& attributes) {
  RecommendQuery query;
  std::vector<FieldViolation> violations;
  CheckHistory(request, limits, violations);
  CheckSelection(request, limits, attributes, query, violations);
  if (request.explain() && query.k > limits.max_explained_k && query.k <= limits.max_k) {
    violations.push_back({"k", absl::StrCat(query.k, " is more than explain allows, ",
                                            limits.max_explained_k, "; ask for fewer items")});
  }
  if (!violations.empty()) {
    return BadRequest(violations);
  }
  ReadSelection(request, items, query);
  query.explain = request.explain();
  query.include_seen = request.include_seen();
  ReadHistory(request, items, query);
  return query;
}

absl::StatusOr<RecommendQuery> ValidateEncode(const v1::EncodeRequest& request,
                                              const RequestLimits& limits, const ItemView& items) {
  RecommendQuery query;
  std::vector<FieldViolation> violations;
  CheckHistory(request, limits, violations);
  CheckWidth(request, limits, violations);
  if (!violations.empty()) {
    return BadRequest(violations);
  }
  query.vector_only = true;
  query.include_seen = !request.return_seen();
  ReadWidth(request, query.width);
  ReadHistory(request, items, query);
  return query;
}

absl::StatusOr<RecommendQuery> ValidateSimilarItems(const v1::SimilarItemsRequest& request,
                                                    const RequestLimits& limits,
                                                    const ItemView& items,
                                                    const AttributeView& attributes) {
  RecommendQuery query;
  std::vector<FieldViolation> violations;
  const std::string& id = request.item_id();
  if (id.empty()) {
    violations.push_back({"item_id", "is empty"});
  } else if (id.size() > limits.max_id_bytes) {
    violations.push_back({"item_id", absl::StrCat("has ", id.size(), " bytes; at most ",
                                                  limits.max_id_bytes, " are allowed")});
  }
  CheckSelection(request, limits, attributes, query, violations);
  if (!violations.empty()) {
    return BadRequest(violations);
  }
  const std::optional<int32_t> item = items.Find(id);
  if (!item.has_value() || !items.IsListed(*item)) {
    return absl::NotFoundError(
        absl::StrCat("item_id: there is no item \"", Printable(id), "\" in the catalogue"));
  }
  ReadSelection(request, items, query);
  query.similar_to = *item;
  query.excluded.push_back(*item);
  return query;
}

}  // namespace nestrec
