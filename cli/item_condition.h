// A filter on catalogue fields as a person writes it on a command line.
//
//   brand=Felane|Orsaro    the field has one of the values
//   brand!=Felane          none of them
//   price<=20              a number up to 20; also <, > and >=
//   in_stock               the field has a value
//   !in_stock              it has none
//
// A value that reads as a number matches it as number and as text, "true" and "false" likewise;
// spaces around names and values do not count. What cannot be said so is said as JSON.
//
// Pure functions.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nestrec/v1/recommend.pb.h"

namespace nestrec {

// kInvalidArgument, quoting it, for a condition that lacks a field, a value or a limit.
absl::StatusOr<v1::ItemFilter> ParseCondition(absl::string_view text);

// nestrec.v1.ItemFilter as JSON. kInvalidArgument with the parser's words.
absl::StatusOr<v1::ItemFilter> ParseFilterJson(const std::string& json);

// All of them. Nothing of none: REQUIRES at least one.
v1::ItemFilter EveryOf(std::vector<v1::ItemFilter> filters);

// "brand=2": at most two items of a value. kInvalidArgument.
absl::StatusOr<v1::GroupCap> ParseCap(absl::string_view text);

}  // namespace nestrec
