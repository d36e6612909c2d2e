#include "server/library_log.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/log_limiter.h"

namespace nestrec {
namespace {

struct LibraryLog {
  Log log;
  LogLimiter limiter{10, 1};
  Clock clock = SteadyClock();

  void Write(absl::string_view library, LogLevel level, absl::string_view file, int line,
             absl::string_view text) {
    if (!log.Writes(level)) return;
    const std::optional<int64_t> left_out = limiter.Admit(clock());
    if (!left_out.has_value()) return;
    const size_t slash = file.rfind('/');
    if (slash != absl::string_view::npos) file.remove_prefix(slash + 1);
    log.Write(level, "library",
              {{"library", library},
               {"text", text},
               {"source", absl::StrCat(file, ":", line)},
               {"left_out", *left_out}});
  }
};

// The libraries' hooks take no argument of ours; it lives as long as they do.
LibraryLog* the_log = nullptr;

void FromProtobuf(google::protobuf::LogLevel level, const char* file, int line,
                  const std::string& text) {
  LogLevel ours = LogLevel::kInfo;
  if (level == google::protobuf::LOGLEVEL_WARNING) ours = LogLevel::kWarning;
  // What a client sent, and no fault of the server's.
  if (level == google::protobuf::LOGLEVEL_ERROR) ours = LogLevel::kWarning;
  if (level == google::protobuf::LOGLEVEL_FATAL) ours = LogLevel::kError;
  the_log->Write("protobuf", ours, file, line, text);
}

void FromGrpc(gpr_log_func_args* message) {
  LogLevel ours = LogLevel::kDebug;
  if (message->severity == GPR_LOG_SEVERITY_INFO) ours = LogLevel::kInfo;
  if (message->severity == GPR_LOG_SEVERITY_ERROR) ours = LogLevel::kWarning;
  the_log->Write("grpc", ours, message->file, message->line, message->message);
}

}  // namespace

void SendLibraryLogsTo(const Log& log) {
  the_log = new LibraryLog{.log = log};
  google::protobuf::SetLogHandler(FromProtobuf);
  gpr_set_log_function(FromGrpc);
}

}  // namespace nestrec
