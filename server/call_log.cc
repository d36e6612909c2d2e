#include "server/call_log.h"

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/request_id.h"

namespace nestrec {
namespace {

constexpr char kRequestId[] = "x-request-id";
constexpr char kTraceParent[] = "traceparent";

absl::string_view HeaderOf(const grpc::ServerContextBase& context, const char* name) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(name);
  return found == metadata.end() ? absl::string_view()
                                 : absl::string_view(found->second.data(), found->second.size());
}

std::string Milliseconds(absl::Duration time) {
  return absl::StrFormat("%.3f", absl::ToDoubleMilliseconds(time));
}

bool IsOurFault(const absl::Status& status) {
  return absl::IsInternal(status) || absl::IsUnknown(status) || absl::IsDataLoss(status);
}

LogField MillisecondsField(absl::string_view key, absl::Duration time) {
  LogField field(key, Milliseconds(time));
  field.bare = true;
  return field;
}

}  // namespace

void CallLog::Arrived(CallInfo& call) {
  const absl::string_view id = HeaderOf(*call.context, kRequestId);
  call.request_id = IsSaneRequestId(id) ? std::string(id) : NewRequestId();
  call.trace_id = TraceIdOf(HeaderOf(*call.context, kTraceParent));
}

void CallLog::End(const CallInfo& call, const absl::Status& status, absl::Duration took) {
  // Clients take first metadata for the beginning of an answer, after which they never try again.
  if (status.ok()) {
    call.context->AddInitialMetadata(kRequestId, call.request_id);
  } else {
    call.context->AddTrailingMetadata(kRequestId, call.request_id);
  }
  if (IsOurFault(status)) {
    Write(LogLevel::kError, "call_failed", failed_, call, status, took);
  } else if (took >= options_.slow) {
    Write(LogLevel::kWarning, "slow_request", slow_, call, status, took);
  } else if (log_.Writes(LogLevel::kDebug)) {
    Write(LogLevel::kDebug, "call", all_, call, status, took);
  }
}

void CallLog::Write(LogLevel level, absl::string_view event, LogLimiter& limiter,
                    const CallInfo& call, const absl::Status& status, absl::Duration took) {
  const std::optional<int64_t> left_out = limiter.Admit(options_.clock());
  if (!left_out.has_value()) return;
  std::vector<LogField> fields = {{"request_id", call.request_id}};
  if (!call.trace_id.empty()) fields.emplace_back("trace_id", call.trace_id);
  fields.emplace_back("method", call.method);
  fields.emplace_back("code", absl::StatusCodeToString(status.code()));
  fields.push_back(MillisecondsField("total_ms", took));
  const CallDetails& details = call.details;
  if (details.requests > 0) fields.emplace_back("requests", details.requests);
  if (details.k > 0) fields.emplace_back("k", details.k);
  if (details.k > 0 || details.dim > 0) fields.emplace_back("history", details.history);
  if (details.dim > 0) {
    fields.emplace_back("dim", details.dim);
    fields.emplace_back("tier", details.tier);
    fields.emplace_back("why", details.why);
    fields.push_back(MillisecondsField("queue_ms", details.queued));
    fields.push_back(MillisecondsField("encode_ms", details.encode));
    fields.push_back(MillisecondsField("search_ms", details.search));
    if (details.session_bytes >= 0) fields.emplace_back("session_bytes", details.session_bytes);
  }
  if (details.work > absl::ZeroDuration()) {
    fields.push_back(MillisecondsField("queue_ms", details.queued));
    fields.push_back(MillisecondsField("work_ms", details.work));
  }
  // Messages about a client's mistakes may quote what it sent; those about ours do not.
  if (IsOurFault(status)) fields.emplace_back("error", status.message());
  if (*left_out > 0) fields.emplace_back("left_out", *left_out);
  log_.Write(level, event, fields);
}

}  // namespace nestrec
