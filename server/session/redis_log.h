// A session log in Redis, for many replicas of a server: any of them may record a user's events and
// answer for the user next. docs/session_log_format.md has the keys.
//
//   NESTREC_ASSIGN_OR_RETURN(RedisAddress address, RedisAddress::Parse("redis://localhost"));
//   RedisSessionLog log({.address = address});
//
// What is acknowledged is as safe as Redis is set up to be (its appendfsync and replicas). Append
// is one script, so that it happens whole or not at all; since every call has an id, it is tried
// again on a new connection when an idle one turns out to be dead. After a failure calls fail at
// once for a while, so that a Redis that is down or slow does not hold up the threads of the
// server.
//
// The password may change while it runs: it is asked for at every connection, and the one that was
// accepted last is tried too, so that either side of a rotation may come first.
//
// Redis expires sessions by its own clock, and evicts by its own settings.
//
// Thread safety: all methods may be called from any thread; each call has a connection to itself.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/clock.h"
#include "server/log.h"
#include "server/log_limiter.h"
#include "server/mutex.h"
#include "server/session/redis_connection.h"
#include "server/session/session_log.h"

namespace nestrec {

class RedisSessionLog : public SessionLog {
 public:
  struct Options {
    RedisAddress address;
    // Asked for at every connection; empty: no login. Called by any thread, one at a time or not.
    std::function<absl::StatusOr<std::string>()> password = [] { return std::string(); };
    std::string prefix = "nestrec";  // of all keys
    int64_t events_per_session = 200;
    absl::Duration ttl = absl::ZeroDuration();         // since a session's last event; 0: for ever
    absl::Duration timeout = absl::Milliseconds(250);  // of connecting, and of one answer
    Clock clock = SteadyClock();
    Log log = StderrLog();  // of connections that fail, and that work again; limited
  };

  // How long calls fail at once after a failure: longer after each, up to the second.
  static constexpr absl::Duration kFirstPause = absl::Milliseconds(50);
  static constexpr absl::Duration kLongestPause = absl::Seconds(2);

  // Does not connect yet.
  explicit RedisSessionLog(Options options);
  ~RedisSessionLog() override;

  // Errors of RedisConnection; a timeout is kUnavailable, and so is a login that Redis refuses: who
  // calls is not to blame.
  absl::StatusOr<SessionAppended> Append(absl::string_view user_id,
                                         std::span<const SessionEvent> events,
                                         absl::string_view event_id) override;
  absl::StatusOr<SessionTail> Read(absl::string_view user_id, int64_t limit) override;
  absl::StatusOr<bool> Forget(absl::string_view user_id) override;
  bool remote() const override { return true; }
  SessionLogStats stats() const override;
  std::string name() const override { return options_.address.ToString(); }

  // Whether Redis answers now.
  absl::Status Ping();

 private:
  absl::StatusOr<RedisValue> Call(const std::vector<std::string>& arguments);
  // A call about the value under the user's key, which it turns into one if an older release wrote
  // it as a stream.
  absl::StatusOr<RedisValue> CallOnString(absl::string_view user_id,
                                          const std::vector<std::string>& arguments);
  absl::StatusOr<RedisValue> CallOnce(const std::vector<std::string>& arguments);
  absl::StatusOr<std::unique_ptr<RedisConnection>> NewConnection();
  std::string KeyOf(absl::string_view user_id, absl::string_view what) const;
  uint64_t RandomNumber();
  // What callers get to know of it.
  absl::Status Failed(const absl::Status& status);
  void Succeeded(std::unique_ptr<RedisConnection> connection);

  const Options options_;
  SessionLogCounter counter_;
  LogLimiter failures_{1, 0.1};  // a line every ten seconds
  Mutex mutex_;
  std::vector<std::unique_ptr<RedisConnection>> idle_ ABSL_GUARDED_BY(mutex_);
  Instant try_again_ ABSL_GUARDED_BY(mutex_) = Instant::min();
  absl::Duration pause_ ABSL_GUARDED_BY(mutex_) = absl::ZeroDuration();
  bool failure_logged_ ABSL_GUARDED_BY(mutex_) = false;
  std::string last_password_ ABSL_GUARDED_BY(mutex_);  // the last one that Redis accepted
  std::mt19937_64 random_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nestrec
