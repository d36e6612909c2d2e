// Structured log lines: an event and its fields, one line each, as text or as JSON.
//
//   log.Info("serving", {{"address", "127.0.0.1:50051"}, {"model", "beauty v2"}});
//   // 2025-01-31T12:00:00.123Z info serving address=127.0.0.1:50051 model="beauty v2"
//   // {"time":"2025-01-31T12:00:00.123Z","level":"info","event":"serving","address":...}
//
// Thread safety: as the sink's; StderrLog writes each line with one call.
#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace nestrec {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

struct LogOptions {
  LogLevel level = LogLevel::kInfo;  // lines below it are not written
  LogFormat format = LogFormat::kText;
};

struct LogField {
  LogField(absl::string_view key, const absl::AlphaNum& value) : key(key), value(value.Piece()) {}
  template <typename Number, typename = std::enable_if_t<std::is_arithmetic_v<Number>>>
  LogField(absl::string_view key, Number number) : key(key), value(TextOf(number)) {
    bare = std::isfinite(static_cast<double>(number));
  }
  std::string key;
  std::string value;
  bool bare = false;  // a number or true or false: without quotes in JSON

 private:
  template <typename Number>
  static std::string TextOf(Number number) {
    if constexpr (std::is_same_v<Number, bool>) {
      return number ? "true" : "false";
    } else {
      return absl::StrCat(number);
    }
  }
};

class Log {
 public:
  // Gets whole lines, without their line end.
  using Sink = std::function<void(absl::string_view line)>;

  explicit Log(Sink sink, const LogOptions& options = {})
      : sink_(std::move(sink)), options_(options) {}

  bool Writes(LogLevel level) const { return level >= options_.level; }

  void Debug(absl::string_view event, const std::vector<LogField>& fields = {}) const {
    Write(LogLevel::kDebug, event, fields);
  }
  void Info(absl::string_view event, const std::vector<LogField>& fields = {}) const {
    Write(LogLevel::kInfo, event, fields);
  }
  void Warning(absl::string_view event, const std::vector<LogField>& fields = {}) const {
    Write(LogLevel::kWarning, event, fields);
  }
  void Error(absl::string_view event, const std::vector<LogField>& fields = {}) const {
    Write(LogLevel::kError, event, fields);
  }
  void Write(LogLevel level, absl::string_view event, const std::vector<LogField>& fields) const;

 private:
  Sink sink_;
  LogOptions options_;
};

Log StderrLog(const LogOptions& options = {});

}  // namespace nestrec
