#include "base/json_text.h"

#include "absl/strings/str_cat.h"
#include "base/utf8.h"

namespace nestrec {
namespace {

constexpr char kReplacement[] = "\xef\xbf\xbd";

void AppendControl(char32_t value, std::string& out) {
  const absl::string_view named = NamedEscape(value);
  if (!named.empty()) {
    absl::StrAppend(&out, named);
  } else {
    absl::StrAppend(&out, "\\u", absl::Hex(static_cast<uint32_t>(value), absl::kZeroPad4));
  }
}

}  // namespace

void AppendJsonText(absl::string_view text, std::string& out) {
  out += '"';
  while (!text.empty()) {
    const CodePoint point = FirstCodePoint(text);
    if (!point.valid) {
      out += kReplacement;
    } else if (point.value == '"' || point.value == '\\') {
      out += '\\';
      out += static_cast<char>(point.value);
    } else if (IsControl(point.value)) {
      AppendControl(point.value, out);
    } else {
      absl::StrAppend(&out, text.substr(0, point.bytes));
    }
    text.remove_prefix(point.bytes);
  }
  out += '"';
}

std::string JsonText(absl::string_view text) {
  std::string out;
  out.reserve(text.size() + 2);
  AppendJsonText(text, out);
  return out;
}

}  // namespace nestrec
