// Strings as JSON has them.
//
//   JsonText("say \"hi\"\n")   // "\"say \\\"hi\\\"\\n\"", with the quotes around it
//
// Pure functions; safe to call from any thread.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace nestrec {

// `text` in quotes. What is not UTF-8 becomes U+FFFD, a character for each byte.
std::string JsonText(absl::string_view text);
void AppendJsonText(absl::string_view text, std::string& out);

}  // namespace nestrec
