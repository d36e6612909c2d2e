// What the subcommands' flags have in common: errors of the command line, apart from those of the
// work that it asks for, and checks that CLI11 lacks.
//
// Pure functions.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace nestrec {

// The error of a flag's value, or of values that do not go together: main exits with 2 for it and
// names --help. An Ok status stays one.
absl::Status UsageError(absl::Status status);
bool IsUsageError(const absl::Status& status);

// A check for add_option: a whole number from `low` to `high`. CLI11 itself would take "-1" for an
// unsigned number, and "" for 0.
CLI::Validator WholeNumber(int64_t low, uint64_t high);

// The duration that a flag's text says. A usage error, naming the limits and an example, for what
// is none or is outside [least, most].
absl::StatusOr<absl::Duration> DurationFlag(absl::string_view flag, const std::string& text,
                                            absl::Duration least, absl::Duration most,
                                            absl::string_view example);

// kInvalidArgument, naming it, for a flag of `command`, or of its chosen subcommand, that was given
// an empty value, as a script does whose variable is not set. Only the item ids of a request may
// be empty.
absl::Status CheckNoneEmpty(const CLI::App& command);

// kInvalidArgument unless `value`, of what `name` says (a flag, or a file and line), is UTF-8.
absl::Status CheckUtf8(absl::string_view name, absl::string_view value);

// The same, and without control characters.
absl::Status CheckText(absl::string_view flag, absl::string_view value);

}  // namespace nestrec
