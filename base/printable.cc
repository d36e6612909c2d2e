#include "base/printable.h"

#include "absl/strings/str_cat.h"
#include "base/utf8.h"

namespace nestrec {
namespace {

// C0, DEL and C1.
bool IsControl(char32_t value) { return value < 0x20 || (value >= 0x7f && value < 0xa0); }

void AppendEscaped(absl::string_view bytes, std::string& out) {
  for (const char byte : bytes) {
    switch (byte) {
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
        absl::StrAppend(&out, "\\x", absl::Hex(static_cast<unsigned char>(byte), absl::kZeroPad2));
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
