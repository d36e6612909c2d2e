// UTF-8, the little of it that reading ids, splitting texts into words and quoting bytes needs.
//
// Pure functions; safe to call from any thread.
#pragma once

#include <cstddef>

#include "absl/strings/string_view.h"

namespace nestrec {

struct CodePoint {
  char32_t value;
  size_t bytes;  // of the text; at least 1
  bool valid;    // false: `value` is the single byte at which the text is not UTF-8
};

// The first character of `text`. REQUIRES: !text.empty().
CodePoint FirstCodePoint(absl::string_view text);

// No overlong forms, surrogates or values above U+10FFFF.
bool IsValidUtf8(absl::string_view text);

// C0, DEL and C1.
inline bool IsControl(char32_t value) { return value < 0x20 || (value >= 0x7f && value < 0xa0); }

// The escape that C, JSON and people know by name: of line feed, carriage return and tab; empty of
// others.
absl::string_view NamedEscape(char32_t value);

}  // namespace nestrec
