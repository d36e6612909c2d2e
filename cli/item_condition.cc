#include "cli/item_condition.h"

#include <google/protobuf/util/json_util.h>

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/printable.h"

namespace nestrec {
namespace {

absl::Status Refused(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("'", Printable(text), "' ", why,
                   "; write brand=A|B, brand!=A, price<=20, price>5 or in_stock"));
}

void AddValue(absl::string_view text, v1::FieldValues& values) {
  values.add_values()->set_text(std::string(text));
  double number = 0;
  if (absl::SimpleAtod(text, &number)) {
    values.add_values()->set_number(number);
  }
  if (text == "true" || text == "false") {
    values.add_values()->set_flag(text == "true");
  }
}

v1::ItemFilter NoneOf(v1::ItemFilter filter) {
  v1::ItemFilter none;
  *none.mutable_none()->add_filters() = std::move(filter);
  return none;
}

absl::StatusOr<v1::ItemFilter> ParseRange(absl::string_view text, absl::string_view field,
                                          absl::string_view sign, absl::string_view limit) {
  double number = 0;
  if (!absl::SimpleAtod(limit, &number)) {
    return Refused(text, "compares with what is no number");
  }
  v1::ItemFilter filter;
  v1::FieldRange& range = *filter.mutable_range();
  range.set_field(std::string(field));
  if (sign[0] == '<') {
    range.set_max(number);
    range.set_exclude_max(sign == "<");
  } else {
    range.set_min(number);
    range.set_exclude_min(sign == ">");
  }
  return filter;
}

}  // namespace

absl::StatusOr<v1::ItemFilter> ParseCondition(absl::string_view text) {
  const absl::string_view whole = absl::StripAsciiWhitespace(text);
  v1::ItemFilter filter;
  // A '!' in front, apart from "!=", asks for items without the field.
  const size_t at = whole.find_first_of("=<>!", 1);
  if (whole.empty() || absl::StrContains("=<>", whole.substr(0, 1))) {
    return Refused(whole, "names no field");
  }
  if (at == absl::string_view::npos) {
    const bool negated = whole[0] == '!';
    const absl::string_view field = absl::StripAsciiWhitespace(whole.substr(negated ? 1 : 0));
    if (field.empty()) {
      return Refused(whole, "names no field");
    }
    filter.set_exists(std::string(field));
    return negated ? NoneOf(std::move(filter)) : filter;
  }
  const absl::string_view field = absl::StripAsciiWhitespace(whole.substr(0, at));
  const bool two_signs = at + 1 < whole.size() && whole[at + 1] == '=' && whole[at] != '=';
  const absl::string_view sign = whole.substr(at, two_signs ? 2 : 1);
  const absl::string_view values = absl::StripAsciiWhitespace(whole.substr(at + sign.size()));
  if (field.empty() || sign == "!") {
    return Refused(whole, "is no condition");
  }
  if (values.empty()) {
    return Refused(whole, "has no value");
  }
  if (sign[0] == '<' || sign[0] == '>') {
    return ParseRange(whole, field, sign, values);
  }
  filter.mutable_any_of()->set_field(std::string(field));
  for (const absl::string_view value : absl::StrSplit(values, '|')) {
    AddValue(absl::StripAsciiWhitespace(value), *filter.mutable_any_of());
  }
  return sign == "!=" ? NoneOf(std::move(filter)) : filter;
}

absl::StatusOr<v1::ItemFilter> ParseFilterJson(const std::string& json) {
  v1::ItemFilter filter;
  const auto status = google::protobuf::util::JsonStringToMessage(json, &filter);
  if (!status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("not a nestrec.v1.ItemFilter as JSON: ", Printable(status.ToString())));
  }
  return filter;
}

v1::ItemFilter EveryOf(std::vector<v1::ItemFilter> filters) {
  if (filters.size() == 1) {
    return std::move(filters.front());
  }
  v1::ItemFilter every;
  for (v1::ItemFilter& filter : filters) {
    *every.mutable_every()->add_filters() = std::move(filter);
  }
  return every;
}

absl::StatusOr<v1::GroupCap> ParseCap(absl::string_view text) {
  const size_t at = text.rfind('=');
  uint32_t most = 0;
  if (at == absl::string_view::npos || at == 0 || !absl::SimpleAtoi(text.substr(at + 1), &most)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", Printable(text), "' is no cap; write brand=2"));
  }
  v1::GroupCap cap;
  cap.set_field(std::string(absl::StripAsciiWhitespace(text.substr(0, at))));
  cap.set_most(most);
  return cap;
}

}  // namespace nestrec
