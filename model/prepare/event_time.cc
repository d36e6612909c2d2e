#include "model/prepare/event_time.h"

#include <cmath>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/time/time.h"

namespace nestrec {
namespace {

// Digits with one point among them, exactly.
std::optional<EventTime> ParseDecimal(absl::string_view text) {
  const size_t point = text.find('.');
  if (point == absl::string_view::npos) return std::nullopt;
  const absl::string_view fraction = text.substr(point + 1);
  if (fraction.find_first_not_of("0123456789") != absl::string_view::npos) return std::nullopt;
  EventTime time;
  if (!absl::SimpleAtoi(text.substr(0, point), &time.whole)) return std::nullopt;
  int32_t unit = 100000000;
  for (size_t i = 0; i < fraction.size() && unit > 0; ++i, unit /= 10)
    time.nanos += (fraction[i] - '0') * unit;
  if (text[0] == '-' && time.nanos > 0) {  // -1.25 is -2 and three quarters
    time.whole -= 1;
    time.nanos = 1000000000 - time.nanos;
  }
  return time;
}

std::optional<EventTime> ParseIso(absl::string_view text) {
  // YYYY-MM-DD at least; what looks otherwise is not tried against the formats.
  if (text.size() < 10 || text[4] != '-' || text[7] != '-') return std::nullopt;
  std::string normal(text);
  if (normal.size() > 10 && (normal[10] == ' ' || normal[10] == 't')) normal[10] = 'T';
  for (const char* format : {"%Y-%m-%dT%H:%M:%E*S%Ez", "%Y-%m-%dT%H:%M:%E*S", "%Y-%m-%dT%H:%M%Ez",
                             "%Y-%m-%dT%H:%M", "%Y-%m-%d"}) {
    absl::Time time;
    std::string error;
    if (!absl::ParseTime(format, normal, &time, &error)) continue;
    if (time == absl::InfiniteFuture() || time == absl::InfinitePast()) continue;
    const int64_t seconds = absl::ToUnixSeconds(time);
    return EventTime{.whole = seconds,
                     .nanos = static_cast<int32_t>(
                         absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds)))};
  }
  return std::nullopt;
}

}  // namespace

std::optional<EventTime> ParseEventTime(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  EventTime time;
  if (absl::SimpleAtoi(text, &time.whole)) return time;
  if (const auto decimal = ParseDecimal(text)) return decimal;
  if (const auto iso = ParseIso(text)) return iso;
  double value = 0;  // 1.4e9
  if (text.find_first_not_of("+-.0123456789eE") != absl::string_view::npos) return std::nullopt;
  if (!absl::SimpleAtod(text, &value) || !(std::abs(value) < 9.2e18)) return std::nullopt;
  const double whole = std::floor(value);
  return EventTime{.whole = static_cast<int64_t>(whole),
                   .nanos = static_cast<int32_t>((value - whole) * 1e9)};
}

}  // namespace nestrec
