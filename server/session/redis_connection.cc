#include "server/session/redis_connection.h"

#include <hiredis/hiredis.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/printable.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

constexpr int kMaxDatabase = 1'000'000;

absl::Status BadAddress(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("'", Printable(text), "' is no Redis address: ", why,
                   "; it looks like redis://host:6379/0 or unix:///run/redis/redis.sock?db=0"));
}

bool ParseDatabase(absl::string_view text, int& database) {
  return absl::SimpleAtoi(text, &database) && database >= 0 && database <= kMaxDatabase;
}

absl::Status ErrorOf(absl::string_view message, const std::string& address) {
  const std::string text = absl::StrCat("Redis at ", address, " says: ", Printable(message));
  // The last one is what a long command gets before its connection has logged in.
  for (const absl::string_view prefix :
       {"NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR Protocol error: unauthenticated"}) {
    if (absl::StartsWith(message, prefix)) return absl::PermissionDeniedError(text);
  }
  for (const absl::string_view prefix :
       {"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "MISCONF", "TRYAGAIN"}) {
    if (absl::StartsWith(message, prefix)) return absl::UnavailableError(text);
  }
  if (absl::StartsWith(message, "OOM")) return absl::ResourceExhaustedError(text);
  if (absl::StartsWith(message, "WRONGTYPE")) return absl::AlreadyExistsError(text);
  if (absl::StartsWith(message, "NOSCRIPT")) return absl::NotFoundError(text);
  return absl::FailedPreconditionError(text);
}

// "MOVED 3999 127.0.0.1:6381", "ASK 3999 127.0.0.1:6381"
std::optional<RedisValue> RedirectOf(absl::string_view message) {
  RedisValue value;
  if (absl::ConsumePrefix(&message, "MOVED ")) {
    value.kind = RedisValue::Kind::kMoved;
  } else if (absl::ConsumePrefix(&message, "ASK ")) {
    value.kind = RedisValue::Kind::kAsk;
  } else {
    return std::nullopt;
  }
  const size_t space = message.find(' ');
  if (space == absl::string_view::npos ||
      !absl::SimpleAtoi(message.substr(0, space), &value.integer)) {
    return std::nullopt;
  }
  value.text = std::string(message.substr(space + 1));
  return value;
}

// The depth of replies to our commands is 4; deeper ones are cut.
RedisValue ValueOf(const redisReply& reply, int depth = 0) {
  RedisValue value;
  switch (reply.type) {
    case REDIS_REPLY_INTEGER:
      value.kind = RedisValue::Kind::kInteger;
      value.integer = reply.integer;
      break;
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
    case REDIS_REPLY_ERROR:
      value.kind = RedisValue::Kind::kText;
      value.text.assign(reply.str, static_cast<size_t>(reply.len));
      break;
    case REDIS_REPLY_ARRAY:
      value.kind = RedisValue::Kind::kArray;
      for (size_t i = 0; depth < 8 && i < static_cast<size_t>(reply.elements); ++i) {
        value.items.push_back(ValueOf(*reply.element[i], depth + 1));
      }
      break;
    default:
      break;
  }
  return value;
}

}  // namespace

absl::StatusOr<RedisAddress> RedisAddress::Parse(absl::string_view text) {
  RedisAddress address;
  absl::string_view rest = text;
  if (absl::ConsumePrefix(&rest, "unix://")) {
    const size_t query = rest.find('?');
    address.socket = std::string(rest.substr(0, query));
    if (address.socket.empty() || address.socket[0] != '/') {
      return BadAddress(text, "a socket needs an absolute path");
    }
    if (query != absl::string_view::npos) {
      absl::string_view database = rest.substr(query + 1);
      if (!absl::ConsumePrefix(&database, "db=") || !ParseDatabase(database, address.database)) {
        return BadAddress(text, "after the '?' only db=<number> may stand");
      }
    }
    return address;
  }
  if (absl::StartsWith(text, "rediss://")) {
    return BadAddress(text, "TLS is not spoken here; put a proxy such as stunnel in between");
  }
  if (!absl::ConsumePrefix(&rest, "redis://")) return BadAddress(text, "it has no known scheme");
  const size_t slash = rest.find('/');
  if (slash != absl::string_view::npos) {
    const absl::string_view database = rest.substr(slash + 1);
    if (!database.empty() && !ParseDatabase(database, address.database)) {
      return BadAddress(text, "the database behind the '/' is no number");
    }
    rest = rest.substr(0, slash);
  }
  const size_t at = rest.rfind('@');
  if (at != absl::string_view::npos) {
    address.user = std::string(rest.substr(0, at));
    if (absl::StrContains(address.user, ':')) {
      // Without quoting what must not be seen.
      return absl::InvalidArgumentError(
          "a Redis address must not hold a password, which everybody could see in the list of "
          "processes; put it into a file");
    }
    rest = rest.substr(at + 1);
  }
  absl::string_view port;
  if (absl::StartsWith(rest, "[")) {
    const size_t close = rest.find(']');
    if (close == absl::string_view::npos) return BadAddress(text, "its '[' is not closed");
    address.host = std::string(rest.substr(1, close - 1));
    port = rest.substr(close + 1);
  } else {
    const size_t colon = std::min(rest.find(':'), rest.size());
    address.host = std::string(rest.substr(0, colon));
    port = rest.substr(colon);
  }
  if (address.host.empty()) return BadAddress(text, "it names no host");
  if (!port.empty() &&
      (!absl::ConsumePrefix(&port, ":") || !absl::SimpleAtoi(port, &address.port) ||
       address.port < 1 || address.port > 65535)) {
    return BadAddress(text, "its port is not in 1 to 65535");
  }
  return address;
}

std::string RedisAddress::ToString() const {
  if (!socket.empty()) return socket;
  return absl::StrContains(host, ':') ? absl::StrCat("[", host, "]:", port)
                                      : absl::StrCat(host, ":", port);
}

absl::StatusOr<std::unique_ptr<RedisConnection>> RedisConnection::Connect(
    const RedisAddress& address, const std::string& password, absl::Duration timeout) {
  const timeval limit = absl::ToTimeval(timeout);
  redisContext* context = address.socket.empty()
                              ? redisConnectWithTimeout(address.host.c_str(), address.port, limit)
                              : redisConnectUnixWithTimeout(address.socket.c_str(), limit);
  if (context == nullptr) return absl::ResourceExhaustedError("no memory for a connection");
  std::unique_ptr<RedisConnection> connection(new RedisConnection(context, address.ToString()));
  if (context->err != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot connect to Redis at ", address.ToString(), ": ", context->errstr));
  }
  if (redisSetTimeout(context, limit) != REDIS_OK) {
    return absl::UnavailableError(absl::StrCat("cannot limit the time of Redis at ",
                                               address.ToString(), ": ", context->errstr));
  }
  if (!password.empty()) {
    std::vector<std::string> login = {"AUTH"};
    if (!address.user.empty()) login.push_back(address.user);
    login.push_back(password);
    NESTREC_RETURN_IF_ERROR(connection->Command(login).status());
  }
  if (address.database != 0) {
    const std::vector<std::string> select = {"SELECT", absl::StrCat(address.database)};
    NESTREC_RETURN_IF_ERROR(connection->Command(select).status());
  }
  return connection;
}

RedisConnection::~RedisConnection() { redisFree(context_); }

absl::StatusOr<RedisValue> RedisConnection::Command(std::span<const std::string> arguments) {
  std::vector<const char*> pointers;
  std::vector<size_t> lengths;
  for (const std::string& argument : arguments) {
    pointers.push_back(argument.data());
    lengths.push_back(argument.size());
  }
  auto* reply = static_cast<redisReply*>(redisCommandArgv(
      context_, static_cast<int>(pointers.size()), pointers.data(), lengths.data()));
  if (reply == nullptr) {
    usable_ = false;
    const bool timed_out =
        context_->err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK);
    const std::string message = absl::StrCat(
        "Redis at ", address_,
        timed_out ? " does not answer in time" : " is gone: ", timed_out ? "" : context_->errstr);
    return timed_out ? absl::DeadlineExceededError(message) : absl::UnavailableError(message);
  }
  const absl::Cleanup free_reply = [reply] { freeReplyObject(reply); };
  if (reply->type == REDIS_REPLY_ERROR) {
    const absl::string_view message(reply->str, static_cast<size_t>(reply->len));
    if (std::optional<RedisValue> redirect = RedirectOf(message)) return *std::move(redirect);
    return ErrorOf(message, address_);
  }
  return ValueOf(*reply);
}

}  // namespace nestrec
