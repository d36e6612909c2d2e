// Splits text into terms, the words and pairs of neighbouring words that the text encoder counts,
// and hashes them.
//
// A word is a run of letters and digits, lower-cased (ASCII, Latin, Greek, Cyrillic). Bytes that
// are not UTF-8 count as letters. A point between two digits belongs to the number ("12.5"), an
// apostrophe inside a word is left out
// ("women's" is "womens"); Chinese and Japanese characters, which are written without spaces, are
// words of their own; everything else separates words. Pairs do not reach over a line end: the
// fields of an item's text are lines.
//
// Pure function; safe to call from any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"

namespace nestrec {

// Names what is described above; a change that gives other terms needs another name.
inline constexpr char kTokenizerVersion[] = "nestrec-words-1";

// The XXH3-64 hash of every term, in the order of the text, a word before the pair that it ends. A
// pair is hashed as its words with a space between.
std::vector<uint64_t> TermHashes(absl::string_view text);

}  // namespace nestrec
