// Connections to one Redis server, for many threads: a call takes one that is idle or makes one,
// and is tried again on a new one when an idle one turns out to be dead. After a failure calls fail
// at once for a while, so that a Redis that is down or slow does not hold up the threads of the
// server.
//
// The password may change while it runs: it is asked for at every connection, and the one that was
// accepted last is tried too, so that either side of a rotation may come first.
//
// Thread safety: all methods may be called from any thread; each call has a connection to itself.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/clock.h"
#include "server/log.h"
#include "server/log_limiter.h"
#include "server/mutex.h"
#include "server/session/redis_connection.h"

namespace nestrec {

class RedisPool {
 public:
  struct Options {
    RedisAddress address;
    // Asked for at every connection, by any thread; empty: no login.
    std::function<absl::StatusOr<std::string>()> password = [] { return std::string(); };
    absl::Duration timeout = absl::Milliseconds(250);  // of connecting, and of one answer
    Clock clock = SteadyClock();
    Log log = StderrLog();  // of connections that fail, and that work again; limited
  };

  // How long calls fail at once after a failure: longer after each, up to the second.
  static constexpr absl::Duration kFirstPause = absl::Milliseconds(50);
  static constexpr absl::Duration kLongestPause = absl::Seconds(2);

  // Does not connect yet.
  explicit RedisPool(Options options);

  // Errors of RedisConnection; a timeout is kUnavailable, and so is a login that Redis refuses: who
  // calls is not to blame. REQUIRES: the call may be carried out twice. asking: as an answer of
  // kind kAsk wants it.
  absl::StatusOr<RedisValue> Call(const std::vector<std::string>& arguments, bool asking = false);

  const RedisAddress& address() const { return options_.address; }

 private:
  static absl::StatusOr<RedisValue> CallOn(RedisConnection& connection,
                                           const std::vector<std::string>& arguments, bool asking);
  absl::StatusOr<std::unique_ptr<RedisConnection>> NewConnection();
  // What callers get to know of it.
  absl::Status Failed(const absl::Status& status);
  void Succeeded(std::unique_ptr<RedisConnection> connection);

  const Options options_;
  LogLimiter failures_{1, 0.1};  // a line every ten seconds
  Mutex mutex_;
  std::vector<std::unique_ptr<RedisConnection>> idle_ ABSL_GUARDED_BY(mutex_);
  Instant try_again_ ABSL_GUARDED_BY(mutex_) = Instant::min();
  absl::Duration pause_ ABSL_GUARDED_BY(mutex_) = absl::ZeroDuration();
  bool failure_logged_ ABSL_GUARDED_BY(mutex_) = false;
  std::string last_password_ ABSL_GUARDED_BY(mutex_);  // the last one that Redis accepted
};

}  // namespace nestrec
