#include "server/session/redis_log.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "server/session/redis_cluster.h"
#include "server/session/redis_record.h"

namespace nestrec {
namespace {

// A call is sent on to another node of a cluster at most so often.
constexpr int kMaxHops = 5;

absl::Status Unexpected(const std::string& key) {
  return absl::FailedPreconditionError(
      absl::StrCat("Redis answers about ", key,
                   " with what no nestrec has written; give the servers a database of their own"));
}

}  // namespace

RedisSessionLog::RedisSessionLog(Options options)
    : options_(std::move(options)), first_(MakePool(options_.redis.address)) {
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

SessionLogStats RedisSessionLog::stats() const {
  SessionLogStats stats;
  counter_.WriteTo(stats);
  return stats;
}

std::shared_ptr<RedisPool> RedisSessionLog::MakePool(const RedisAddress& address) const {
  RedisPool::Options options = options_.redis;
  options.address = address;
  return std::make_shared<RedisPool>(std::move(options));
}

std::shared_ptr<RedisPool> RedisSessionLog::PoolOf(int slot) {
  const MutexLock lock(mutex_);
  const auto found = nodes_of_slots_.find(slot);
  return found == nodes_of_slots_.end() ? first_ : found->second;
}

absl::StatusOr<std::shared_ptr<RedisPool>> RedisSessionLog::SentOn(const RedisValue& answer,
                                                                   const RedisPool& from) {
  NESTREC_ASSIGN_OR_RETURN(const RedisAddress address,
                           RedisNodeAddress(answer.text, from.address()));
  const MutexLock lock(mutex_);
  std::shared_ptr<RedisPool>& pool = nodes_[address.ToString()];
  if (pool == nullptr) pool = MakePool(address);
  if (answer.kind == RedisValue::Kind::kMoved) {
    nodes_of_slots_[static_cast<int>(answer.integer)] = pool;
  }
  return pool;
}

void RedisSessionLog::AskAgain(int slot) {
  const MutexLock lock(mutex_);
  nodes_of_slots_.erase(slot);
}

absl::StatusOr<RedisValue> RedisSessionLog::Call(const std::string& key,
                                                 const std::vector<std::string>& arguments) {
  const Instant begun = options_.redis.clock();
  absl::StatusOr<RedisValue> value =
      Guard("asking Redis", [&] { return CallWhereItIs(key, arguments); });
  counter_.Count(value.ok(), Between(begun, options_.redis.clock()));
  return value;
}

absl::StatusOr<RedisValue> RedisSessionLog::CallWhereItIs(
    const std::string& key, const std::vector<std::string>& arguments) {
  const int slot = RedisSlot(key);
  std::shared_ptr<RedisPool> pool = PoolOf(slot);
  bool asking = false;
  for (int hop = 0; hop <= kMaxHops; ++hop) {
    absl::StatusOr<RedisValue> value = pool->Call(arguments, asking);
    // Another node may have taken the place of one that is gone: the first one knows.
    if (absl::IsUnavailable(value.status())) AskAgain(slot);
    if (!value.ok()) return value;
    asking = value->kind == RedisValue::Kind::kAsk;
    if (!asking && value->kind != RedisValue::Kind::kMoved) return value;
    NESTREC_ASSIGN_OR_RETURN(pool, SentOn(*value, *pool));
  }
  return absl::UnavailableError(
      absl::StrCat("the nodes of the Redis Cluster at ", name(),
                   " send us from one to the other; its slots are moving, "
                   "or its nodes disagree (redis-cli --cluster check)"));
}

absl::StatusOr<RedisValue> RedisSessionLog::CallOnString(
    absl::string_view user_id, const std::vector<std::string>& arguments) {
  const std::string key = KeyOf(user_id, "events");
  absl::StatusOr<RedisValue> value = Call(key, arguments);
  if (!absl::IsAlreadyExists(value.status())) return value;
  const absl::Status turned =
      Call(key, {"EVAL", kStreamToRedisRecord, "2", key, KeyOf(user_id, "calls"),
                 PackSessionNumber(RandomNumber())})
          .status();
  if (absl::IsFailedPrecondition(turned)) return Unexpected(key);
  NESTREC_RETURN_IF_ERROR(turned);
  return Call(key, arguments);
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
  const std::string key = KeyOf(user_id, "events");
  NESTREC_ASSIGN_OR_RETURN(const RedisValue value,
                           Call(key, {"DEL", key, KeyOf(user_id, "calls")}));
  return value.integer > 0;
}

absl::Status RedisSessionLog::Ping() { return Call("", {"PING"}).status(); }

}  // namespace nestrec
