#include "server/log.h"

#include <cstdio>

#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/printable.h"

namespace nestrec {

void Log::Write(absl::string_view level, absl::string_view event,
                const std::vector<LogField>& fields) const {
  std::string line =
      absl::StrCat(absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone()), " ",
                   level, " ", event);
  for (const LogField& field : fields) {
    // Utf8SafeCEscape takes every byte from 0x80 on for part of a character.
    const std::string escaped = Printable(absl::Utf8SafeCEscape(field.value));
    const bool quoted =
        escaped.empty() || escaped.find(' ') != std::string::npos || escaped != field.value;
    absl::StrAppend(&line, " ", field.key, "=", quoted ? "\"" : "", escaped, quoted ? "\"" : "");
  }
  sink_(line);
}

Log StderrLog() {
  return Log([](absl::string_view line) {
    const std::string whole = absl::StrCat(line, "\n");
    std::fwrite(whole.data(), 1, whole.size(), stderr);
  });
}

}  // namespace nestrec
