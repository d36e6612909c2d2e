// The moment of an event, as it is written in logs.
//
// Pure functions; safe to call from any thread.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace nestrec {

// `whole` units and `nanos` billionths of one. The unit of a number is whatever the log counts in
// (seconds, milliseconds, ...): times of one log are only compared with each other.
struct EventTime {
  int64_t whole = 0;
  int32_t nanos = 0;
  friend auto operator<=>(const EventTime& a, const EventTime& b) = default;
};

// Reads an integer or decimal number, or ISO 8601: 2014-07-01, 2014-07-01T12:30, 2014-07-01
// 12:30:15.25, 2014-07-01T12:30:15Z, 2014-07-01T12:30:15+02:00 (UTC where no zone is given; as
// seconds since 1970). Nothing for any other text.
std::optional<EventTime> ParseEventTime(absl::string_view text);

}  // namespace nestrec
