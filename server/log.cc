#include "server/log.h"

#include <cstdio>

#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/json_text.h"
#include "base/printable.h"

namespace nestrec {
namespace {

absl::string_view NameOf(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "unknown";
}

std::string TextLine(absl::string_view time, LogLevel level, absl::string_view event,
                     const std::vector<LogField>& fields) {
  std::string line = absl::StrCat(time, " ", NameOf(level), " ", event);
  for (const LogField& field : fields) {
    // Utf8SafeCEscape takes every byte from 0x80 on for part of a character.
    const std::string escaped = Printable(absl::Utf8SafeCEscape(field.value));
    const bool quoted =
        escaped.empty() || escaped.find(' ') != std::string::npos || escaped != field.value;
    absl::StrAppend(&line, " ", field.key, "=", quoted ? "\"" : "", escaped, quoted ? "\"" : "");
  }
  return line;
}

std::string JsonLine(absl::string_view time, LogLevel level, absl::string_view event,
                     const std::vector<LogField>& fields) {
  std::string line = absl::StrCat("{\"time\":\"", time, "\",\"level\":\"", NameOf(level),
                                  "\",\"event\":", JsonText(event));
  for (const LogField& field : fields) {
    absl::StrAppend(&line, ",", JsonText(field.key), ":");
    if (field.bare) {
      line += field.value;
    } else {
      AppendJsonText(field.value, line);
    }
  }
  line += '}';
  return line;
}

}  // namespace

void Log::Write(LogLevel level, absl::string_view event,
                const std::vector<LogField>& fields) const {
  if (!Writes(level)) return;
  const std::string time =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  sink_(options_.format == LogFormat::kJson ? JsonLine(time, level, event, fields)
                                            : TextLine(time, level, event, fields));
}

Log StderrLog(const LogOptions& options) {
  return Log(
      [](absl::string_view line) {
        const std::string whole = absl::StrCat(line, "\n");
        std::fwrite(whole.data(), 1, whole.size(), stderr);
      },
      options);
}

}  // namespace nestrec
