#include "base/utf8.h"

namespace nestrec {

CodePoint FirstCodePoint(absl::string_view text) {
  const auto byte = [&text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {first, 1, true};
  const CodePoint invalid{first, 1, false};
  size_t bytes = 0;
  char32_t value = 0;
  char32_t smallest = 0;
  if (first >= 0xc2 && first <= 0xdf) {
    bytes = 2;
    value = first & 0x1f;
    smallest = 0x80;
  } else if (first >= 0xe0 && first <= 0xef) {
    bytes = 3;
    value = first & 0x0f;
    smallest = 0x800;
  } else if (first >= 0xf0 && first <= 0xf4) {
    bytes = 4;
    value = first & 0x07;
    smallest = 0x10000;
  } else {
    return invalid;
  }
  if (text.size() < bytes) return invalid;
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return invalid;
    value = value << 6 | (byte(i) & 0x3f);
  }
  if (value < smallest || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) return invalid;
  return {value, bytes, true};
}

bool IsValidUtf8(absl::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const CodePoint point = FirstCodePoint(text.substr(at));
    if (!point.valid) return false;
    at += point.bytes;
  }
  return true;
}

absl::string_view NamedEscape(char32_t value) {
  switch (value) {
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      return {};
  }
}

}  // namespace nestrec
