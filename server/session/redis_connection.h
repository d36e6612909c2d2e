// One connection to a Redis server: commands and replies, with a limit on how long anything may
// take.
//
// REQUIRES: the process ignores SIGPIPE.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

struct redisContext;

namespace nestrec {

struct RedisAddress {
  std::string host;  // or
  int port = 6379;
  std::string socket;  // the path of a Unix socket
  int database = 0;
  std::string user;

  // "redis://host", "redis://user@host:6379/2", "redis://[::1]", "unix:///run/redis.sock",
  // "unix:///run/redis.sock?db=2". kInvalidArgument for anything else, a password included: it
  // would be seen in the list of processes.
  static absl::StatusOr<RedisAddress> Parse(absl::string_view text);
  // "host:6379" or the socket's path.
  std::string ToString() const;
};

struct RedisValue {
  // kMoved, kAsk: another node of a Redis Cluster has the key for good, or for this one call, which
  // ASKING precedes; `integer` is its slot, `text` the node, "host:port". Nothing was carried out.
  enum class Kind { kNil, kInteger, kText, kArray, kMoved, kAsk };
  Kind kind = Kind::kNil;
  int64_t integer = 0;
  std::string text;
  std::vector<RedisValue> items;
};

class RedisConnection {
 public:
  // kUnavailable when nobody answers in time, kPermissionDenied when the password is wrong or
  // missing.
  static absl::StatusOr<std::unique_ptr<RedisConnection>> Connect(const RedisAddress& address,
                                                                  const std::string& password,
                                                                  absl::Duration timeout);
  ~RedisConnection();
  RedisConnection(const RedisConnection&) = delete;
  RedisConnection& operator=(const RedisConnection&) = delete;

  // kDeadlineExceeded when no answer comes in time and kUnavailable when the connection is lost: it
  // is of no use afterwards, and whether the command was carried out is not known. What Redis
  // refuses: kResourceExhausted (out of memory), kPermissionDenied, kUnavailable (it loads its
  // data, or is a replica), kAlreadyExists (under this key there is a value of another type),
  // kNotFound (a script that it does not know), else kFailedPrecondition.
  absl::StatusOr<RedisValue> Command(std::span<const std::string> arguments);

  bool usable() const { return usable_; }

 private:
  RedisConnection(redisContext* context, std::string address)
      : context_(context), address_(std::move(address)) {}

  redisContext* const context_;
  const std::string address_;
  bool usable_ = true;
};

}  // namespace nestrec
