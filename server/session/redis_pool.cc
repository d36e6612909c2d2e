#include "server/session/redis_pool.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

constexpr size_t kMaxIdle = 32;

}  // namespace

RedisPool::RedisPool(Options options) : options_(std::move(options)) {}

absl::StatusOr<std::unique_ptr<RedisConnection>> RedisPool::NewConnection() {
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
    if (as_before.ok()) {
      if (const std::optional<int64_t> left_out = failures_.Admit(options_.clock())) {
        options_.log.Warning("redis_former_password", {{"address", options_.address.ToString()},
                                                       {"error", made.status().message()},
                                                       {"left_out", *left_out}});
      }
      return as_before;
    }
  }
  return made;
}

absl::Status RedisPool::Failed(const absl::Status& status) {
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
    options_.log.Warning(
        refused ? "redis_refuses_login" : "redis_unavailable",
        {{"address", options_.address.ToString()}, {"error", message}, {"left_out", *left_out}});
  }
  return absl::UnavailableError(message);
}

void RedisPool::Succeeded(std::unique_ptr<RedisConnection> connection) {
  bool say_so = false;
  {
    const MutexLock lock(mutex_);
    pause_ = absl::ZeroDuration();
    try_again_ = Instant::min();
    if (connection->usable() && idle_.size() < kMaxIdle) idle_.push_back(std::move(connection));
    say_so = std::exchange(failure_logged_, false);
  }
  if (say_so) options_.log.Info("redis_answers", {{"address", options_.address.ToString()}});
}

absl::StatusOr<RedisValue> RedisPool::CallOn(RedisConnection& connection,
                                             const std::vector<std::string>& arguments,
                                             bool asking) {
  if (asking) {
    const std::vector<std::string> before = {"ASKING"};
    NESTREC_RETURN_IF_ERROR(connection.Command(before).status());
  }
  return connection.Command(arguments);
}

absl::StatusOr<RedisValue> RedisPool::Call(const std::vector<std::string>& arguments, bool asking) {
  return Guard("asking Redis", [&]() -> absl::StatusOr<RedisValue> {
    std::unique_ptr<RedisConnection> connection;
    {
      const MutexLock lock(mutex_);
      if (!idle_.empty()) {
        connection = std::move(idle_.back());
        idle_.pop_back();
      } else if (options_.clock() < try_again_) {
        return absl::UnavailableError(absl::StrCat("Redis at ", options_.address.ToString(),
                                                   " did not answer a moment ago; sessions wait "
                                                   "until it is asked again"));
      }
    }
    if (connection != nullptr) {
      absl::StatusOr<RedisValue> value = CallOn(*connection, arguments, asking);
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
    absl::StatusOr<RedisValue> value = CallOn(**made, arguments, asking);
    if ((*made)->usable() && !absl::IsPermissionDenied(value.status())) {
      Succeeded(*std::move(made));
      return value;
    }
    return Failed(value.status());
  });
}

}  // namespace nestrec
