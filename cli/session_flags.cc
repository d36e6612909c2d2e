#include "cli/session_flags.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "cli/flags.h"
#include "server/session/embedded_log.h"

namespace nestrec {
namespace {

constexpr absl::Duration kLongestTtl = absl::Hours(24 * 3650);
constexpr absl::Duration kLongestTimeout = absl::Seconds(60);

}  // namespace

void AddSessionFlags(CLI::App& command, SessionFlags& flags) {
  command
      .add_option("--sessions", flags.options.store,
                  "Where users' events are kept: a folder of this server's own, "
                  "redis://host:6379/0 or unix:///path/redis.sock for many servers, or none")
      ->capture_default_str();
  command
      .add_option(
          "--session-events", flags.options.events,
          "Newest events that are kept of a user, up to 1000; at least what the model reads")
      ->check(WholeNumber(1, EmbeddedSessionLog::kMaxEventsPerSession))
      ->capture_default_str();
  command
      .add_option("--session-ttl", flags.ttl,
                  "Forget users this long after their last event; 0s: never")
      ->capture_default_str();
  command
      .add_option("--session-bytes", flags.options.log_bytes,
                  "Memory for events, in a folder's store; users of longest ago make room")
      ->check(WholeNumber(1 << 20, std::numeric_limits<int64_t>::max()))
      ->capture_default_str();
  command
      .add_option("--session-state-bytes", flags.options.state_bytes,
                  "Memory for what models remember of users; made again when it is needed")
      ->check(WholeNumber(0, std::numeric_limits<int64_t>::max()))
      ->capture_default_str();
  command
      .add_option("--session-sync", flags.sync,
                  "What recorded events survive, in a folder's store: the end of the process, or "
                  "with disk that of the machine")
      ->check(CLI::IsMember({"process", "disk"}))
      ->capture_default_str();
  command.add_option("--redis-password-file", flags.options.redis_password_file,
                     "File whose content is the password of Redis (default: none)");
  command
      .add_option("--redis-timeout", flags.redis_timeout,
                  "How long Redis may take to answer, 1ms to 60s")
      ->capture_default_str();
}

absl::StatusOr<SessionOptions> SessionOptionsOf(const SessionFlags& flags) {
  SessionOptions options = flags.options;
  NESTREC_ASSIGN_OR_RETURN(options.ttl, DurationFlag("--session-ttl", flags.ttl,
                                                     absl::ZeroDuration(), kLongestTtl, "720h"));
  NESTREC_ASSIGN_OR_RETURN(options.redis_timeout,
                           DurationFlag("--redis-timeout", flags.redis_timeout,
                                        absl::Milliseconds(1), kLongestTimeout, "250ms"));
  options.sync =
      flags.sync == "disk" ? EmbeddedSessionLog::Sync::kDisk : EmbeddedSessionLog::Sync::kProcess;
  const absl::Status status = CheckSessionOptions(options);
  if (!status.ok()) {
    return UsageError(absl::InvalidArgumentError(absl::StrCat("--sessions: ", status.message())));
  }
  return options;
}

}  // namespace nestrec
