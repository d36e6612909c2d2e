// What the log says of calls: those that were slow, and those that failed by a fault of ours. Never
// ids of users or items.
//
// Gives every call its request id: the client's x-request-id where it is a sane one
// (server/request_id.h), else a new one; it goes back to the client as x-request-id in the answer's
// first metadata, and with an error in the trailing metadata, which lets gRPC's retries see that
// there is no answer. The trace id of a traceparent header stands beside it.
//
//   slow_request request_id=... method=Recommend code=OK total_ms=61.2 queue_ms=... dim=64 ...
//
// At most kBurst lines at once and kPerSecond after that; `left_out` counts the others.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <vector>

#include "absl/time/time.h"
#include "server/clock.h"
#include "server/log.h"
#include "server/log_limiter.h"
#include "server/unary_call.h"

namespace nestrec {

class CallLog final : public CallHook {
 public:
  static constexpr double kBurst = 20;
  static constexpr double kPerSecond = 2;

  struct Options {
    absl::Duration slow = absl::InfiniteDuration();  // calls that take at least this long are slow
    Clock clock = SteadyClock();
  };

  // `log` outlives this object.
  CallLog(const Log& log, Options options) : log_(log), options_(std::move(options)) {}

  void Arrived(CallInfo& call) override;
  void End(const CallInfo& call, const absl::Status& status, absl::Duration took) override;

 private:
  // The line's limit is the level's: slow calls and failed ones do not push each other out.
  void Write(LogLevel level, absl::string_view event, LogLimiter& limiter, const CallInfo& call,
             const absl::Status& status, absl::Duration took);

  const Log& log_;
  const Options options_;
  LogLimiter slow_{kBurst, kPerSecond};
  LogLimiter failed_{kBurst, kPerSecond};
  LogLimiter all_{100 * kBurst, 100 * kPerSecond};  // of debugging
};

}  // namespace nestrec
