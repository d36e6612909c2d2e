#include "cli/flags.h"

#include <algorithm>

#include "absl/numeric/int128.h"
#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/printable.h"
#include "base/status_macros.h"
#include "base/utf8.h"

namespace nestrec {
namespace {

constexpr size_t kMostQuoted = 100;
constexpr char kUsagePayload[] = "nestrec/usage";

// Nothing when `text` is no whole number; limits beyond those of 64 bits are outside any range.
bool ParseWhole(absl::string_view text, absl::int128* value) {
  const bool negative = absl::ConsumePrefix(&text, "-");
  if (!negative) absl::ConsumePrefix(&text, "+");
  if (text.empty() || !std::all_of(text.begin(), text.end(), [](char c) {
        return absl::ascii_isdigit(static_cast<unsigned char>(c));
      })) {
    return false;
  }
  uint64_t digits = 0;
  *value = absl::SimpleAtoi(text, &digits) ? absl::int128(digits) : absl::Int128Max();
  if (negative) *value = -*value;
  return true;
}

}  // namespace

absl::Status UsageError(absl::Status status) {
  if (!status.ok()) status.SetPayload(kUsagePayload, absl::Cord());
  return status;
}

bool IsUsageError(const absl::Status& status) {
  return status.GetPayload(kUsagePayload).has_value();
}

CLI::Validator WholeNumber(int64_t low, uint64_t high) {
  return CLI::Validator(
      [low, high](std::string& text) -> std::string {
        absl::int128 value = 0;
        if (!ParseWhole(text, &value)) {
          return absl::StrCat("'", text, "' is not a whole number; it must be from ", low, " to ",
                              high);
        }
        return value >= low && value <= absl::int128(high)
                   ? std::string()
                   : absl::StrCat(text, " is outside ", low, " to ", high);
      },
      "");
}

absl::StatusOr<absl::Duration> DurationFlag(absl::string_view flag, const std::string& text,
                                            absl::Duration least, absl::Duration most,
                                            absl::string_view example) {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration) || duration < least || duration > most) {
    return UsageError(absl::InvalidArgumentError(
        absl::StrCat(flag, ": '", text, "' is not a duration from ", absl::FormatDuration(least),
                     " to ", absl::FormatDuration(most), ", such as ", example)));
  }
  return duration;
}

absl::Status CheckNoneEmpty(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options()) {
    if (option->check_lname("history") || option->check_lname("exclude")) continue;
    const std::vector<std::string>& values = option->results();
    if (std::find(values.begin(), values.end(), "") != values.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(option->get_name(), ": is empty; give a value, or leave it out"));
    }
  }
  for (const CLI::App* chosen : command.get_subcommands()) {
    NESTREC_RETURN_IF_ERROR(CheckNoneEmpty(*chosen));
  }
  return absl::OkStatus();
}

absl::Status CheckUtf8(absl::string_view name, absl::string_view value) {
  if (IsValidUtf8(value)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, ": not valid UTF-8: '",
                                                 Printable(value.substr(0, kMostQuoted)),
                                                 "'; convert it, for example with iconv"));
}

absl::Status CheckText(absl::string_view flag, absl::string_view value) {
  NESTREC_RETURN_IF_ERROR(CheckUtf8(flag, value));
  if (Printable(value) != value) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, ": '", Printable(value), "' has control characters; leave them out"));
  }
  return absl::OkStatus();
}

}  // namespace nestrec
