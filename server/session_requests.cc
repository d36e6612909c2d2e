#include "server/session_requests.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

// A store that is gone is asked again after at most two seconds; a full disk takes a person.
constexpr absl::Duration kRetryDelay = absl::Seconds(1);

// Of google.protobuf.Timestamp: 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z.
constexpr int64_t kFirstSecond = -62'135'596'800;
constexpr int64_t kLastSecond = 253'402'300'799;

std::optional<FieldViolation> CheckText(absl::string_view field, const std::string& text,
                                        size_t max_bytes, bool required) {
  if (text.empty() && required) return FieldViolation{std::string(field), "is empty"};
  if (text.size() > max_bytes) {
    return FieldViolation{std::string(field), absl::StrCat("has ", text.size(), " bytes; at most ",
                                                           max_bytes, " are allowed")};
  }
  return std::nullopt;
}

std::optional<FieldViolation> CheckItems(const v1::RecordEventsRequest& request,
                                         const RequestLimits& limits) {
  const int count = request.item_ids_size();
  if (count < 1 || count > limits.max_events) {
    return FieldViolation{"item_ids",
                          absl::StrCat(count, " entries; 1 to ", limits.max_events, " are allowed",
                                       count == 0 ? "" : "; send them in parts")};
  }
  for (int i = 0; i < count; ++i) {
    if (auto violation = CheckText(absl::StrCat("item_ids[", i, "]"), request.item_ids(i),
                                   limits.max_id_bytes, /*required=*/true)) {
      return violation;
    }
  }
  return std::nullopt;
}

std::optional<FieldViolation> CheckTimes(const v1::RecordEventsRequest& request) {
  const int count = request.timestamps_size();
  if (count != 0 && count != request.item_ids_size()) {
    return FieldViolation{
        "timestamps", absl::StrCat(count, " entries, but item_ids has ", request.item_ids_size(),
                                   "; send one for each, or none")};
  }
  for (int i = 0; i < count; ++i) {
    const auto& time = request.timestamps(i);
    if (time.seconds() < kFirstSecond || time.seconds() > kLastSecond || time.nanos() < 0 ||
        time.nanos() > 999'999'999) {
      return FieldViolation{absl::StrCat("timestamps[", i, "]"),
                            absl::StrCat(time.seconds(), " seconds and ", time.nanos(),
                                         " nanoseconds are no time between the years 1 and 9999")};
    }
  }
  return std::nullopt;
}

absl::Status WithRetry(absl::Status status) {
  // A volume that has become read-only, say: nothing that the caller may not do.
  if (absl::IsPermissionDenied(status)) status = absl::UnavailableError(status.message());
  const bool passes = absl::IsUnavailable(status) || absl::IsResourceExhausted(status);
  return passes ? WithRetryDelay(std::move(status), kRetryDelay) : status;
}

}  // namespace

std::optional<FieldViolation> CheckUserId(const std::string& user_id, const RequestLimits& limits,
                                          bool required) {
  return CheckText("user_id", user_id, limits.max_user_id_bytes, required);
}

absl::StatusOr<RecordQuery> ValidateRecordEvents(const v1::RecordEventsRequest& request,
                                                 const RequestLimits& limits, const ItemView& items,
                                                 absl::Time now) {
  std::vector<FieldViolation> violations;
  for (auto violation :
       {CheckUserId(request.user_id(), limits, /*required=*/true), CheckItems(request, limits),
        CheckTimes(request),
        CheckText("event_id", request.event_id(), limits.max_event_id_bytes, /*required=*/false)}) {
    if (violation.has_value()) violations.push_back(*std::move(violation));
  }
  if (!violations.empty()) return BadRequest(violations);
  RecordQuery query{
      .user_id = request.user_id(), .events = {}, .event_id = request.event_id(), .unknown = {}};
  absl::flat_hash_set<absl::string_view> unknown;
  for (int i = 0; i < request.item_ids_size(); ++i) {
    const std::string& id = request.item_ids(i);
    const absl::Time time = request.timestamps_size() == 0
                                ? now
                                : absl::FromUnixSeconds(request.timestamps(i).seconds()) +
                                      absl::Nanoseconds(request.timestamps(i).nanos());
    query.events.push_back({.item_id = id, .time = time});
    if (!items.Find(id).has_value() && unknown.insert(id).second) {
      ++query.unknown.count;
      if (query.unknown.ids.size() < UnknownIds::kReported) query.unknown.ids.push_back(id);
    }
  }
  return query;
}

absl::Status ValidateForgetUser(const v1::ForgetUserRequest& request, const RequestLimits& limits) {
  const auto violation = CheckUserId(request.user_id(), limits, /*required=*/true);
  return violation.has_value() ? BadRequest({*violation}) : absl::OkStatus();
}

absl::Status NoSessionsError() {
  return absl::FailedPreconditionError(
      "this server keeps no sessions; send history_item_ids, or start it with --sessions");
}

absl::Status RecordEvents(SessionManager& sessions, const RecordQuery& query,
                          v1::RecordEventsResponse& response) {
  const absl::StatusOr<SessionAppended> appended =
      sessions.Record(query.user_id, query.events, query.event_id);
  if (!appended.ok()) return WithRetry(appended.status());
  response.set_duplicate(appended->duplicate);
  response.set_event_count(appended->end);
  response.mutable_unknown_item_ids()->Assign(query.unknown.ids.begin(), query.unknown.ids.end());
  response.set_unknown_item_count(static_cast<uint32_t>(query.unknown.count));
  return absl::OkStatus();
}

absl::Status ForgetUser(SessionManager& sessions, const std::string& user_id,
                        v1::ForgetUserResponse& response) {
  const absl::StatusOr<bool> forgotten = sessions.Forget(user_id);
  if (!forgotten.ok()) return WithRetry(forgotten.status());
  response.set_existed(*forgotten);
  return absl::OkStatus();
}

absl::Status ReadSession(SessionManager& sessions, const ItemView& items, RecommendQuery& query) {
  if (query.user_id.empty() || query.session.has_value()) return absl::OkStatus();
  absl::StatusOr<SessionHistory> history =
      sessions.Read(query.user_id, [&items](absl::string_view id) { return items.Find(id); });
  if (!history.ok()) return WithRetry(history.status());
  if (!query.include_seen) {
    std::copy_if(history->items.begin(), history->items.end(), std::back_inserter(query.excluded),
                 [](int32_t item) { return item != 0; });
  }
  query.session = *std::move(history);
  return absl::OkStatus();
}

}  // namespace nestrec
