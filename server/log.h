// Structured log lines: an event and its fields, one line each.
//
//   log.Info("serving", {{"address", "127.0.0.1:50051"}, {"model", "beauty v2"}});
//   // 2025-01-31T12:00:00.123Z info serving address=127.0.0.1:50051 model="beauty v2"
//
// Thread safety: as the sink's; StderrLog writes each line with one call.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace nestrec {

struct LogField {
  LogField(absl::string_view key, const absl::AlphaNum& value) : key(key), value(value.Piece()) {}
  std::string key;
  std::string value;
};

class Log {
 public:
  // Gets whole lines, without their line end.
  using Sink = std::function<void(absl::string_view line)>;

  explicit Log(Sink sink) : sink_(std::move(sink)) {}

  void Info(absl::string_view event, const std::vector<LogField>& fields = {}) const {
    Write("info", event, fields);
  }
  void Warning(absl::string_view event, const std::vector<LogField>& fields = {}) const {
    Write("warning", event, fields);
  }

 private:
  void Write(absl::string_view level, absl::string_view event,
             const std::vector<LogField>& fields) const;

  Sink sink_;
};

Log StderrLog();

}  // namespace nestrec
