#include "server/validate.h"

#include <cmath>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/proto_time.h"
#include "server/status_details.h"

namespace nestrec {
namespace {

constexpr uint32_t kDefaultK = 10;
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

// The numbers of the ids that the catalogue has, in their order.
std::vector<int32_t> Resolve(const StringList& ids, const Catalogue& catalogue,
                             UnknownIds& unknown) {
  std::vector<int32_t> numbers;
  numbers.reserve(static_cast<size_t>(ids.size()));
  absl::flat_hash_set<absl::string_view> unknown_ids;
  for (const std::string& id : ids) {
    if (const std::optional<int32_t> number = catalogue.Find(id)) {
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

// What is wrong; what is right of filter, caps and diversity goes into `query`.
std::vector<FieldViolation> FindViolations(const v1::RecommendRequest& request,
                                           const RequestLimits& limits,
                                           const AttributeTable& attributes,
                                           RecommendQuery& query) {
  std::vector<FieldViolation> violations;
  const auto add = [&](std::optional<FieldViolation> violation) {
    if (violation.has_value()) {
      violations.push_back(*std::move(violation));
    }
  };
  add(CheckStrings(request.history_item_ids(), "history_item_ids", limits.max_history,
                   limits.max_id_bytes, "; send the newest"));
  query.k = request.has_k() ? request.k() : kDefaultK;
  const bool k_is_good = query.k >= 1 && query.k <= limits.max_k;
  if (request.has_k() && !k_is_good) {
    violations.push_back({"k", absl::StrCat(request.k(), " is not in 1 to ", limits.max_k)});
  }
  if (request.user_id().size() > limits.max_user_id_bytes) {
    violations.push_back(
        {"user_id", absl::StrCat("has ", request.user_id().size(), " bytes; at most ",
                                 limits.max_user_id_bytes, " are allowed")});
  }
  if (request.width_case() == v1::RecommendRequest::kTier &&
      request.tier().size() > limits.max_tier_bytes) {
    violations.push_back({"tier", absl::StrCat("has ", request.tier().size(), " bytes; at most ",
                                               limits.max_tier_bytes, " are allowed")});
  }
  if (request.has_latency_budget()) {
    add(CheckBudget(request.latency_budget()));
  }
  if (request.has_min_quality() && !(request.min_quality() >= 0 && request.min_quality() <= 1)) {
    violations.push_back({"min_quality", absl::StrCat(request.min_quality(), " is not in 0 to 1")});
  }
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
  query.caps = ReadCaps(request, limits.filter, attributes, violations);
  if (request.has_diversity() && k_is_good) {
    query.diversity = ReadDiversity(request.diversity(), query.k, limits.filter, violations);
  }
  add(CheckStrings(request.fields(), "fields", limits.max_fields, limits.max_field_bytes, ""));
  return violations;
}

}  // namespace

absl::StatusOr<RecommendQuery> ValidateRecommend(const v1::RecommendRequest& request,
                                                 const RequestLimits& limits,
                                                 const Catalogue& catalogue,
                                                 const AttributeTable& attributes) {
  RecommendQuery query;
  const std::vector<FieldViolation> violations = FindViolations(request, limits, attributes, query);
  if (!violations.empty()) {
    return BadRequest(violations);
  }
  query.user_id = request.user_id();
  query.include_seen = request.include_seen();
  query.history = Resolve(request.history_item_ids(), catalogue, query.unknown_history);
  query.excluded = Resolve(request.exclude_item_ids(), catalogue, query.unknown_excluded);
  if (!request.include_seen()) {
    query.excluded.insert(query.excluded.end(), query.history.begin(), query.history.end());
  }
  if (!request.only_item_ids().empty()) {
    query.only = Resolve(request.only_item_ids(), catalogue, query.unknown_only);
  }
  if (request.width_case() == v1::RecommendRequest::kDim) {
    query.width.dim = request.dim();
  } else if (request.width_case() == v1::RecommendRequest::kTier) {
    query.width.tier = request.tier();
  }
  if (request.has_latency_budget()) {
    query.width.latency_budget = FromProto(request.latency_budget());
  }
  if (request.has_min_quality()) {
    query.width.min_quality = request.min_quality();
  }
  if (request.has_min_score()) {
    query.min_score = request.min_score();
  }
  query.fields.assign(request.fields().begin(), request.fields().end());
  if (query.fields.empty()) {
    query.fields.push_back(kDefaultField);
  }
  return query;
}

}  // namespace nestrec
