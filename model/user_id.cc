#include "model/user_id.h"

#include <cstddef>

namespace nestrec {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Bytes of the character at `text` that must be escaped; 0 for one that may stand as it is. The
// Unicode white space is what Python's str.split splits at: others read this file too.
size_t EscapedBytes(absl::string_view text) {
  const unsigned char first = static_cast<unsigned char>(text[0]);
  if (first <= ' ' || first == 0x7f || first == '%') return 1;
  const absl::string_view two = text.substr(0, 2);
  if (two == "\xc2\x85" || two == "\xc2\xa0") return 2;
  const absl::string_view three = text.substr(0, 3);
  if (three == "\xe1\x9a\x80" || three == "\xe3\x80\x80" || three == "\xe2\x81\x9f") return 3;
  if (three.size() == 3 && three.substr(0, 2) == "\xe2\x80") {
    const unsigned char last = static_cast<unsigned char>(three[2]);
    if (last <= 0x8a || last == 0xa8 || last == 0xa9 || last == 0xaf) return 3;
  }
  return 0;
}

}  // namespace

std::string EncodeUserId(absl::string_view id) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string word;
  word.reserve(id.size());
  for (size_t at = 0; at < id.size();) {
    const size_t escaped = EscapedBytes(id.substr(at));
    if (escaped == 0) word.push_back(id[at++]);
    for (size_t i = 0; i < escaped; ++i, ++at) {
      const unsigned char byte = static_cast<unsigned char>(id[at]);
      word.push_back('%');
      word.push_back(kDigits[byte >> 4]);
      word.push_back(kDigits[byte & 15]);
    }
  }
  return word;
}

std::string DecodeUserId(absl::string_view word) {
  std::string id;
  id.reserve(word.size());
  for (size_t at = 0; at < word.size(); ++at) {
    if (word[at] == '%' && word.size() - at > 2 && HexDigit(word[at + 1]) >= 0 &&
        HexDigit(word[at + 2]) >= 0) {
      id.push_back(static_cast<char>(HexDigit(word[at + 1]) * 16 + HexDigit(word[at + 2])));
      at += 2;
    } else {
      id.push_back(word[at]);
    }
  }
  return id;
}

}  // namespace nestrec
