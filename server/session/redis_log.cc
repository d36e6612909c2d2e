#include "server/session/redis_log.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "server/session/session_record.h"

namespace nestrec {
namespace {

constexpr size_t kMaxIdle = 32;

// Entries of a session's stream have the id <session>-<event>; so the newest one says which session
// it is and how many events it has had.
constexpr char kAppendScript[] = R"lua(
local session, count = ARGV[1], 0
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if newest[1] then
  local number
  session, number = string.match(newest[1][1], '^(%d+)-(%d+)$')
  count = tonumber(number) + 1
else
  redis.call('DEL', KEYS[2])
end
if redis.call('ZSCORE', KEYS[2], ARGV[4]) then
  return {session, string.format('%.0f', count), 1}
end
for i = 6, #ARGV, 2 do
  local id = session .. '-' .. string.format('%.0f', count)
  redis.call('XADD', KEYS[1], id, 'item', ARGV[i], 'time', ARGV[i + 1])
  count = count + 1
end
redis.call('XTRIM', KEYS[1], 'MAXLEN', ARGV[2])
redis.call('ZADD', KEYS[2], count, ARGV[4])
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - tonumber(ARGV[5]))
if tonumber(ARGV[3]) > 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
return {session, string.format('%.0f', count), 0}
)lua";

absl::Status Unexpected(const std::string& key) {
  return absl::FailedPreconditionError(
      absl::StrCat("Redis answers about ", key,
                   " with what no nestrec has written; give the servers a database of their own"));
}

// "<session>-<event>"
bool ParseEntryId(const std::string& id, uint64_t& session, int64_t& event) {
  const std::vector<absl::string_view> parts = absl::StrSplit(id, '-');
  return parts.size() == 2 && absl::SimpleAtoi(parts[0], &session) &&
         absl::SimpleAtoi(parts[1], &event) && event >= 0;
}

// {id, {"item", ..., "time", ...}}
bool ParseEntry(const RedisValue& entry, uint64_t& session, int64_t& number, SessionEvent& event) {
  if (entry.items.size() != 2 || !ParseEntryId(entry.items[0].text, session, number)) return false;
  const std::vector<RedisValue>& fields = entry.items[1].items;
  int64_t time_ms = 0;
  if (fields.size() != 4 || fields[0].text != "item" || fields[2].text != "time" ||
      !absl::SimpleAtoi(fields[3].text, &time_ms)) {
    return false;
  }
  event = {fields[1].text, absl::FromUnixMillis(time_ms)};
  return true;
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

absl::StatusOr<SessionAppended> RedisSessionLog::Append(absl::string_view user_id,
                                                        std::span<const SessionEvent> events,
                                                        absl::string_view event_id) {
  const std::string key = KeyOf(user_id, "events");
  // A call without an id gets one, so that it may be tried again.
  const CallId call =
      event_id.empty() ? CallId{RandomNumber(), RandomNumber()} : HashCallId(event_id);
  std::vector<std::string> arguments = {"EVAL",
                                        kAppendScript,
                                        "2",
                                        key,
                                        KeyOf(user_id, "calls"),
                                        absl::StrCat(RandomNumber()),
                                        absl::StrCat(options_.events_per_session),
                                        absl::StrCat(absl::ToInt64Milliseconds(options_.ttl)),
                                        absl::StrFormat("%016x%016x", call[0], call[1]),
                                        absl::StrCat(SessionLog::kRememberedCalls)};
  for (const SessionEvent& event : events) {
    arguments.push_back(event.item_id);
    arguments.push_back(absl::StrCat(absl::ToUnixMillis(event.time)));
  }
  NESTREC_ASSIGN_OR_RETURN(const RedisValue value, Call(arguments));
  SessionAppended appended;
  if (value.items.size() != 3 || !absl::SimpleAtoi(value.items[0].text, &appended.session) ||
      !absl::SimpleAtoi(value.items[1].text, &appended.end)) {
    return Unexpected(key);
  }
  appended.duplicate = value.items[2].integer == 1;
  return appended;
}

absl::StatusOr<SessionTail> RedisSessionLog::Read(absl::string_view user_id, int64_t limit) {
  const std::string key = KeyOf(user_id, "events");
  NESTREC_ASSIGN_OR_RETURN(
      const RedisValue value,
      Call({"XREVRANGE", key, "+", "-", "COUNT", absl::StrCat(std::max<int64_t>(limit, 1))}));
  SessionTail tail;
  for (const RedisValue& entry : value.items) {
    uint64_t session = 0;
    int64_t number = 0;
    SessionEvent event;
    if (!ParseEntry(entry, session, number, event)) return Unexpected(key);
    if (tail.session == 0) {
      tail.session = session;
      tail.end = number + 1;
    }
    tail.events.push_back(std::move(event));
  }
  std::reverse(tail.events.begin(), tail.events.end());
  return tail;
}

absl::StatusOr<bool> RedisSessionLog::Forget(absl::string_view user_id) {
  NESTREC_ASSIGN_OR_RETURN(const RedisValue value,
                           Call({"DEL", KeyOf(user_id, "events"), KeyOf(user_id, "calls")}));
  return value.integer > 0;
}

absl::Status RedisSessionLog::Ping() { return Call({"PING"}).status(); }

}  // namespace nestrec
