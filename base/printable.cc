#include "base/printable.h"

#include "absl/strings/str_cat.h"
#include "base/utf8.h"

namespace nestrec {
namespace {

void AppendEscaped(absl::string_view bytes, std::string& out) {
  for (const char byte : bytes) {
    const auto value = static_cast<unsigned char>(byte);
    const absl::string_view named = NamedEscape(value);
    if (!named.empty()) {
      absl::StrAppend(&out, named);
    } else {
      absl::StrAppend(&out, "\\x", absl::Hex(value, absl::kZeroPad2));
    }
  }
}

std::string Escape(absl::string_view text, bool keep_line_ends) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const CodePoint point = FirstCodePoint(text);
    const absl::string_view bytes = text.substr(0, point.bytes);
    const bool kept = keep_line_ends && bytes == "\n";
    if (!kept && (!point.valid || IsControl(point.value))) {
      AppendEscaped(bytes, out);
    } else {
      absl::StrAppend(&out, bytes);
    }
    text.remove_prefix(point.bytes);
  }
  return out;
}

}  // namespace

std::string Printable(absl::string_view text) { return Escape(text, /*keep_line_ends=*/false); }

std::string PrintableLines(absl::string_view text) { return Escape(text, /*keep_line_ends=*/true); }

}  // namespace nestrec
