#include "server/session/redis_log.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "server/session/redis_record.h"

namespace nestrec {
namespace {

constexpr size_t kMaxIdle = 32;

absl::Status Unexpected(const std::string& key) {
  return absl::FailedPreconditionError(
      absl::StrCat("Redis answers about ", key,
                   " with what no nestrec has written; give the servers a database of their own"));
}

}  // namespace

RedisSessionLog::RedisSessionLog(Options options) : options_(std::move(options)) {
  std::random_device device;
  std::seed_seq seeds{device(), device(), device(), device()};
  const MutexLock lock(mutex_);
  random_.seed(seeds);
}

RedisSessionLog::~RedisSessionLog() = default;

// Braces make both keys of a user go to one slot; those of the id itself are escaped.
std::string RedisSessionLog::KeyOf(absl::string_view user_id, absl::string_view what) const {
  std::string key = absl::StrCat(options_.prefix, ":{");
  for (const char c : user_id) {
    if (c == '{' || c == '}' || c == '%') {
      absl::StrAppendFormat(&key, "%%%02x", static_cast<unsigned char>(c));
    } else {
      key += c;
    }
  }
  return absl::StrCat(key, "}:", what);
}

uint64_t RedisSessionLog::RandomNumber() {
  const MutexLock lock(mutex_);
  return random_() | 1;  // never 0
}

absl::StatusOr<std::unique_ptr<RedisConnection>> RedisSessionLog::NewConnection() {
  std::string last;
  {
    const MutexLock lock(mutex_);
    last = last_password_;
  }
  const absl::StatusOr<std::string> password = options_.password();
  absl::StatusOr<std::unique_ptr<RedisConnection>> made =
      password.ok() ? RedisConnection::Connect(options_.address, *password, options_.timeout)
                    : password.status();
  if (made.ok()) {
    const MutexLock lock(mutex_);
    last_password_ = *password;
  } else if ((!password.ok() || absl::IsPermissionDenied(made.status())) && !last.empty() &&
             last != password.value_or("")) {
    // The file has changed before Redis has, or is being written.
    auto as_before = RedisConnection::Connect(options_.address, last, options_.timeout);
    if (as_before.ok()) return as_before;
  }
  return made;
}

absl::Status RedisSessionLog::Failed(const absl::Status& status) {
  const bool refused = absl::IsPermissionDenied(status);
  const Instant now = options_.clock();
  const std::optional<int64_t> left_out = failures_.Admit(now);
  {
    const MutexLock lock(mutex_);
    pause_ = std::clamp(2 * pause_, kFirstPause, kLongestPause);
    try_again_ = now + absl::ToChronoNanoseconds(pause_);
    // Redis goes on to serve connections whose login it would refuse by now.
    if (!refused) idle_.clear();
    failure_logged_ = failure_logged_ || left_out.has_value();
  }
  const std::string message =
      refused ? absl::StrCat(status.message(),
                             "; correct the file of --redis-password-file or the user in "
                             "--sessions: the file is read again at every connection")
              : std::string(status.message());
  if (left_out.has_value()) {
    options_.log.Warning(refused ? "redis_refuses_login" : "redis_unavailable",
                         {{"address", name()}, {"error", message}, {"left_out", *left_out}});
  }
  return absl::UnavailableError(message);
}

void RedisSessionLog::Succeeded(std::unique_ptr<RedisConnection> connection) {
  bool say_so = false;
  {
    const MutexLock lock(mutex_);
    pause_ = absl::ZeroDuration();
    try_again_ = Instant::min();
    if (connection->usable() && idle_.size() < kMaxIdle) idle_.push_back(std::move(connection));
    say_so = std::exchange(failure_logged_, false);
  }
  if (say_so) options_.log.Info("redis_answers", {{"address", name()}});
}

SessionLogStats RedisSessionLog::stats() const {
  SessionLogStats stats;
  counter_.WriteTo(stats);
  return stats;
}

absl::StatusOr<RedisValue> RedisSessionLog::Call(const std::vector<std::string>& arguments) {
  const Instant begun = options_.clock();
  absl::StatusOr<RedisValue> value = CallOnce(arguments);
  counter_.Count(value.ok(), Between(begun, options_.clock()));
  return value;
}

absl::StatusOr<RedisValue> RedisSessionLog::CallOnce(const std::vector<std::string>& arguments) {
  return Guard("asking Redis", [&]() -> absl::StatusOr<RedisValue> {
    std::unique_ptr<RedisConnection> connection;
    {
      const MutexLock lock(mutex_);
      if (!idle_.empty()) {
        connection = std::move(idle_.back());
        idle_.pop_back();
      } else if (options_.clock() < try_again_) {
        return absl::UnavailableError(absl::StrCat("Redis at ", name(),
                                                   " did not answer a moment ago; sessions wait "
                                                   "until it is asked again"));
      }
    }
    if (connection != nullptr) {
      absl::StatusOr<RedisValue> value = connection->Command(arguments);
      // What was refused for want of a login was not carried out.
      if (connection->usable() && !absl::IsPermissionDenied(value.status())) {
        Succeeded(std::move(connection));
        return value;
      }
      if (absl::IsDeadlineExceeded(value.status())) return Failed(value.status());
      // It had been closed while it was idle, as when Redis was started again.
    }
    absl::StatusOr<std::unique_ptr<RedisConnection>> made = NewConnection();
    if (!made.ok()) return Failed(made.status());
    absl::StatusOr<RedisValue> value = (*made)->Command(arguments);
    if ((*made)->usable() && !absl::IsPermissionDenied(value.status())) {
      Succeeded(*std::move(made));
      return value;
    }
    return Failed(value.status());
  });
}

absl::StatusOr<RedisValue> RedisSessionLog::CallOnString(
    absl::string_view user_id, const std::vector<std::string>& arguments) {
  absl::StatusOr<RedisValue> value = Call(arguments);
  if (!absl::IsAlreadyExists(value.status())) return value;
  const absl::Status turned = Call({"EVAL", kStreamToRedisRecord, "2", KeyOf(user_id, "events"),
                                    KeyOf(user_id, "calls"), PackSessionNumber(RandomNumber())})
                                  .status();
  if (absl::IsFailedPrecondition(turned)) return Unexpected(KeyOf(user_id, "events"));
  NESTREC_RETURN_IF_ERROR(turned);
  return Call(arguments);
}

absl::StatusOr<SessionAppended> RedisSessionLog::Append(absl::string_view user_id,
                                                        std::span<const SessionEvent> events,
                                                        absl::string_view event_id) {
  const std::string key = KeyOf(user_id, "events");
  // A call without an id gets one, so that it may be tried again.
  const CallId call =
      event_id.empty() ? CallId{RandomNumber(), RandomNumber()} : HashCallId(event_id);
  const std::span<const SessionEvent> kept =
      events.last(std::min(events.size(), static_cast<size_t>(options_.events_per_session)));
  NESTREC_ASSIGN_OR_RETURN(
      const RedisValue value,
      CallOnString(user_id,
                   {"EVAL", kAppendToRedisRecord, "1", key, PackSessionNumber(RandomNumber()),
                    absl::StrCat(options_.events_per_session),
                    absl::StrCat(absl::ToInt64Milliseconds(options_.ttl)), PackCallId(call),
                    absl::StrCat(SessionLog::kRememberedCalls), absl::StrCat(events.size()),
                    absl::StrCat(kept.size()), PackSessionEvents(kept)}));
  SessionAppended appended;
  if (value.items.size() != 3 || !absl::SimpleAtoi(value.items[1].text, &appended.end)) {
    return Unexpected(key);
  }
  NESTREC_ASSIGN_OR_RETURN(appended.session, ParseSessionNumber(value.items[0].text));
  appended.duplicate = value.items[2].integer == 1;
  return appended;
}

absl::StatusOr<SessionTail> RedisSessionLog::Read(absl::string_view user_id, int64_t limit) {
  const std::string key = KeyOf(user_id, "events");
  NESTREC_ASSIGN_OR_RETURN(const RedisValue value, CallOnString(user_id, {"GET", key}));
  if (value.kind == RedisValue::Kind::kNil) return SessionTail();
  absl::StatusOr<SessionTail> tail = ParseRedisRecord(value.text, std::max<int64_t>(limit, 1));
  return absl::IsDataLoss(tail.status()) ? Unexpected(key) : tail;
}

absl::StatusOr<bool> RedisSessionLog::Forget(absl::string_view user_id) {
  NESTREC_ASSIGN_OR_RETURN(const RedisValue value,
                           Call({"DEL", KeyOf(user_id, "events"), KeyOf(user_id, "calls")}));
  return value.integer > 0;
}

absl::Status RedisSessionLog::Ping() { return Call({"PING"}).status(); }

}  // namespace nestrec
