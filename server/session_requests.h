// RecordEvents and ForgetUser: from the requests as they came to what a session log takes, and the
// work itself.
//
// Thread safety: pure functions, but for what the manager does.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "nestrec/v1/recommend.pb.h"
#include "server/live/item_view.h"
#include "server/session/session_manager.h"
#include "server/status_details.h"
#include "server/validate.h"

namespace nestrec {

struct RecordQuery {
  std::string user_id;
  std::vector<SessionEvent> events;
  std::string event_id;
  UnknownIds unknown;  // of the catalogue; recorded all the same
};

// kInvalidArgument with a violation for every bad field. Events without a time get `now`.
absl::StatusOr<RecordQuery> ValidateRecordEvents(const v1::RecordEventsRequest& request,
                                                 const RequestLimits& limits, const ItemView& items,
                                                 absl::Time now);

absl::Status ValidateForgetUser(const v1::ForgetUserRequest& request, const RequestLimits& limits);

// Whether a user id may be one; `required` refuses an empty one.
std::optional<FieldViolation> CheckUserId(const std::string& user_id, const RequestLimits& limits,
                                          bool required);

// kFailedPrecondition for a server that keeps no sessions.
absl::Status NoSessionsError();

// Errors of SessionLog::Append and SessionLog::Forget; those that mean "try again later" say when.
absl::Status RecordEvents(SessionManager& sessions, const RecordQuery& query,
                          v1::RecordEventsResponse& response);
absl::Status ForgetUser(SessionManager& sessions, const std::string& user_id,
                        v1::ForgetUserResponse& response);

// Reads the query's session, once, and keeps what it has seen from coming back.
absl::Status ReadSession(SessionManager& sessions, const ItemView& items, RecommendQuery& query);

}  // namespace nestrec
