// Sessions at serving: the log that is the truth, the states that are computed from it, and the
// vector that answers a request.
//
//   sessions.Record("user 7", events, "call 1");
//   NESTREC_ASSIGN_OR_RETURN(SessionHistory history, sessions.Read("user 7", catalogue));
//   SessionQuery query{.history = &history, .more = {}, .levels = 4};
//   SessionAnswer answer;
//   sessions.Encode(model, {&query, 1}, {&answer, 1});
//
// Recording computes nothing; a state runs on when an answer needs it, at the width of that answer.
// A model that was not there before, a wider level, a state that was evicted: all are computed from
// the log. So any replica with the same log may serve the user next.
//
// Thread safety: all methods may be called from any thread. No lock is held while the log or the
// model works; two answers for one user at a time may compute the same step twice.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/catalogue.h"
#include "model/encoder.h"
#include "model/stepper.h"
#include "server/session/session_log.h"
#include "server/session/state_cache.h"

namespace nestrec {

// A model as sessions need it; whoever calls keeps it alive.
struct SessionModel {
  const Encoder* encoder;
  const Stepper* stepper;  // null: every answer encodes the session's items
  uint64_t version;        // see StateCache::Key
};

// A session as one catalogue sees it.
struct SessionHistory {
  std::string user_id;
  uint64_t session = 0;        // 0: there is none
  int64_t end = 0;             // events that it ever had
  std::vector<int32_t> items;  // the newest, oldest first; 0: not in the catalogue
  int64_t unknown = 0;         // of them
};

struct SessionQuery {
  const SessionHistory* history;
  History more;         // items that follow, for this answer alone
  int levels;           // at least these
  int most_levels = 0;  // up to these, as long as there is time; 0: as levels
  // Items that the model's table does not have, or has otherwise; may be null.
  const ItemRows* item_rows = nullptr;
  // What all items were at the time of this answer, and the last time at which one of the session's
  // items changed: a state of before that is computed again. Numbers that only grow.
  uint64_t items = 0;
  uint64_t items_changed = 0;
};

struct SessionAnswer {
  std::vector<float> z;  // [dim of the finished levels]
  int finished = 0;      // levels
  StepWay way = StepWay::kRemembered;
  int64_t computed = 0;  // items
};

struct SessionStats {
  SessionLogStats log;
  StateCache::Stats states;
  int64_t remembered = 0, stepped = 0, replayed = 0;  // answers
  int64_t computed = 0;                               // items
};

class SessionManager {
 public:
  // `state_bytes`: of all states together.
  SessionManager(std::unique_ptr<SessionLog> log, size_t state_bytes)
      : log_(std::move(log)), states_(state_bytes) {}

  const SessionLog& log() const { return *log_; }

  // As SessionLog::Append.
  absl::StatusOr<SessionAppended> Record(absl::string_view user_id,
                                         std::span<const SessionEvent> events,
                                         absl::string_view event_id) {
    return log_->Append(user_id, events, event_id);
  }

  // As SessionLog::Read, in the catalogue's numbers: find(id) is an item's, nothing where there is
  // none.
  using FindItem = absl::FunctionRef<std::optional<int32_t>(absl::string_view id)>;
  absl::StatusOr<SessionHistory> Read(absl::string_view user_id, FindItem find);
  absl::StatusOr<SessionHistory> Read(absl::string_view user_id, const Catalogue& catalogue) {
    return Read(user_id, [&](absl::string_view id) { return catalogue.Find(id); });
  }

  // Fills answers[i] for queries[i], whose levels may differ. Beyond its `levels` a query goes on
  // while `go_on` says so, which gets its place (model/encoder.h); as Stepper::Run, only as far as
  // its state can be widened. Errors of Stepper::Run and Encoder::Encode.
  absl::Status Encode(const SessionModel& model, std::span<const SessionQuery> queries,
                      std::span<SessionAnswer> answers, GoOn go_on);
  // At `levels`.
  absl::Status Encode(const SessionModel& model, std::span<const SessionQuery> queries,
                      std::span<SessionAnswer> answers) {
    return Encode(model, queries, answers, [](size_t, int) { return false; });
  }

  // What a model that is not stepped on reads: the window of its last max_len events, as far as the
  // catalogue has them, and what follows them.
  static std::vector<int32_t> ItemsOf(const SessionQuery& query, int max_len);

  // Log and state; false when there was no session.
  absl::StatusOr<bool> Forget(absl::string_view user_id);

  // Of one user's state in memory.
  size_t StateBytesOf(absl::string_view user_id) const { return states_.BytesOf(user_id); }
  // And of the log in memory with it.
  size_t BytesOf(absl::string_view user_id) const {
    return states_.BytesOf(user_id) + log_->BytesOf(user_id);
  }
  SessionStats stats() const;

 private:
  absl::Status Step(const SessionModel& model, std::span<const SessionQuery> queries,
                    std::span<SessionAnswer> answers, GoOn go_on);
  static absl::Status EncodeAgain(const SessionModel& model, std::span<const SessionQuery> queries,
                                  std::span<SessionAnswer> answers, GoOn go_on);

  const std::unique_ptr<SessionLog> log_;
  StateCache states_;
  // Counts alone: any order will do.
  std::atomic<int64_t> remembered_{0}, stepped_{0}, replayed_{0}, computed_{0};
};

}  // namespace nestrec
