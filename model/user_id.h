// User ids in interactions.txt, where an id is the first word of its line.
//
// An id may be any UTF-8 text; white space (ASCII and Unicode), control characters and '%' are
// written as %XX, byte by byte, as in a URL: "Ann Lee" is "Ann%20Lee". A '%' that two hexadecimal
// digits do not follow stands for itself, so that files from elsewhere with such ids read as they
// are.
//
// Pure functions; safe to call from any thread.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace nestrec {

std::string EncodeUserId(absl::string_view id);
std::string DecodeUserId(absl::string_view word);

}  // namespace nestrec
