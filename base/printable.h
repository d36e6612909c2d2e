// Bytes from outside as they may stand in a message: a terminal obeys control characters, and a log
// reader or JSON parser stops at what is not UTF-8.
//
//   Printable("caf\xc3\xa9")      // "café"
//   Printable("caf\xe9 \x1b[31m")  // "caf\xe9 \x1b[31m", with backslashes
//
// Pure functions; safe to call from any thread.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace nestrec {

// `text` with every byte that belongs to a control character, or to no UTF-8 character, written as
// \n, \r, \t or \x1b. The rest stays as it is, quotes and backslashes too: this is for people.
std::string Printable(absl::string_view text);

// The same for a text of several lines: the line ends stay.
std::string PrintableLines(absl::string_view text);

}  // namespace nestrec
