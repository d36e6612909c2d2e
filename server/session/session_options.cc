#include "server/session/session_options.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "server/session/redis_connection.h"
#include "server/session/redis_log.h"

namespace nestrec {
namespace {

constexpr size_t kMaxPasswordBytes = 4096;

bool IsAddress(absl::string_view store) { return absl::StrContains(store, "://"); }

absl::StatusOr<std::string> ReadPassword(const std::string& path) {
  if (path.empty()) return std::string();
  NESTREC_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxPasswordBytes));
  const absl::string_view password = absl::StripSuffix(absl::StripSuffix(text, "\n"), "\r");
  if (password.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is empty; it must hold a password"));
  }
  return std::string(password);
}

}  // namespace

bool KeepsSessions(const SessionOptions& options) { return options.store != "none"; }

absl::Status CheckSessionOptions(const SessionOptions& options) {
  if (options.store.empty()) {
    return absl::InvalidArgumentError("no store for sessions; name a folder, a Redis or none");
  }
  if (options.events < 1 || options.events > EmbeddedSessionLog::kMaxEventsPerSession) {
    return absl::InvalidArgumentError(absl::StrCat("sessions of ", options.events, " events; 1 to ",
                                                   EmbeddedSessionLog::kMaxEventsPerSession,
                                                   " can be kept"));
  }
  return IsAddress(options.store) ? RedisAddress::Parse(options.store).status() : absl::OkStatus();
}

absl::Status CheckSessionsFit(const SessionOptions& options, int max_len) {
  if (!KeepsSessions(options) || options.events >= max_len) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("sessions keep ", options.events,
                                                 " events, but the model reads the last ", max_len,
                                                 "; keep at least that many"));
}

absl::StatusOr<std::unique_ptr<SessionManager>> OpenSessions(const SessionOptions& options,
                                                             const Log& log) {
  NESTREC_RETURN_IF_ERROR(CheckSessionOptions(options));
  if (!IsAddress(options.store)) {
    NESTREC_ASSIGN_OR_RETURN(std::unique_ptr<EmbeddedSessionLog> embedded,
                             EmbeddedSessionLog::Open({.folder = options.store,
                                                       .events_per_session = options.events,
                                                       .max_bytes = options.log_bytes,
                                                       .ttl = options.ttl,
                                                       .sync = options.sync,
                                                       .log = log}));
    return std::make_unique<SessionManager>(std::move(embedded), options.state_bytes);
  }
  NESTREC_ASSIGN_OR_RETURN(const RedisAddress address, RedisAddress::Parse(options.store));
  NESTREC_RETURN_IF_ERROR(ReadPassword(options.redis_password_file).status());
  auto redis = std::make_unique<RedisSessionLog>(RedisSessionLog::Options{
      .redis = {.address = address,
                .password = [path = options.redis_password_file] { return ReadPassword(path); },
                .timeout = options.redis_timeout,
                .log = log},
      .events_per_session = options.events,
      .ttl = options.ttl});
  NESTREC_RETURN_IF_ERROR(redis->Ping());
  log.Info("sessions_in_redis", {{"address", address.ToString()}});
  return std::make_unique<SessionManager>(std::move(redis), options.state_bytes);
}

}  // namespace nestrec
