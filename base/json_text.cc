#include "base/json_text.h"

#include "absl/strings/str_cat.h"
#include "base/utf8.h"

namespace nestrec {
namespace {

constexpr char kReplacement[] = "\xef\xbf\xbd";

void AppendControl(char32_t value, std::string& out) {
  switch (value) {
    case '\n':
      out += "\\n";
      break;
    case '\r':
      out += "\\r";
      break;
    case '\t':
      out += "\\t";
      break;
    default:
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
    } else if (point.value < 0x20 || (point.value >= 0x7f && point.value < 0xa0)) {
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
