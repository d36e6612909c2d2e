#include "model/prepare/text_tokenizer.h"

#include <cstddef>
#include <string>

#include "absl/strings/ascii.h"
#include "base/utf8.h"

#define XXH_INLINE_ALL
#include "xxhash.h"

namespace nestrec {
namespace {

constexpr uint64_t kHashSeed = 0x6e65737472656331;  // "nestrec1"

uint64_t Hash(const std::string& term) {
  return XXH3_64bits_withSeed(term.data(), term.size(), kHashSeed);
}

// Written without spaces: kana and Han.
bool IsIdeograph(char32_t c) {
  return (c >= 0x3040 && c <= 0x30ff) || (c >= 0x3400 && c <= 0x4dbf) ||
         (c >= 0x4e00 && c <= 0x9fff) || (c >= 0xf900 && c <= 0xfaff) ||
         (c >= 0x20000 && c <= 0x3ffff);
}

// Signs and spaces beyond ASCII. Unknown ranges count as letters: most of Unicode is.
bool IsSeparator(char32_t c) {
  return (c >= 0x80 && c <= 0xa9) || (c >= 0xab && c <= 0xb4) || (c >= 0xb6 && c <= 0xb9) ||
         (c >= 0xbb && c <= 0xbf) || c == 0xd7 || c == 0xf7 || (c >= 0x2000 && c <= 0x206f) ||
         (c >= 0x20a0 && c <= 0x20cf) || (c >= 0x2100 && c <= 0x2bff) ||
         (c >= 0x3000 && c <= 0x303f) || (c >= 0xfe30 && c <= 0xfe4f) ||
         (c >= 0xff00 && c <= 0xff0f) || (c >= 0xff1a && c <= 0xff20) || c == 0xfeff || c == 0xfffd;
}

// The character's text, lower-cased: the ranges where lower case is a fixed step away, with as many
// bytes.
void AppendLower(absl::string_view bytes, char32_t c, std::string& word) {
  char32_t lower = c;
  if ((c >= 0xc0 && c <= 0xde) || (c >= 0x391 && c <= 0x3a9) || (c >= 0x410 && c <= 0x42f)) {
    lower = c + 0x20;
  } else if (c >= 0x400 && c <= 0x40f) {
    lower = c + 0x50;
  } else if ((c >= 0x100 && c <= 0x137 && c != 0x130 && c != 0x131) || (c >= 0x14a && c <= 0x177)) {
    lower = c | 1;  // pairs of an even capital and an odd small letter
  } else if ((c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17e)) {
    lower = c + (c & 1);  // odd capital, even small letter
  }
  if (lower == c) {
    word.append(bytes.data(), bytes.size());
  } else {
    word.push_back(static_cast<char>(0xc0 | lower >> 6));
    word.push_back(static_cast<char>(0x80 | (lower & 0x3f)));
  }
}

// Collects characters into words and words into terms.
class TermBuilder {
 public:
  std::string& word() { return word_; }

  void EndWord() {
    if (word_.empty()) return;
    hashes_.push_back(Hash(word_));
    if (!previous_.empty()) hashes_.push_back(Hash(previous_ + ' ' + word_));
    previous_.swap(word_);
    word_.clear();
  }
  void EndLine() {
    EndWord();
    previous_.clear();
  }
  std::vector<uint64_t> Take() {
    EndWord();
    return std::move(hashes_);
  }

 private:
  std::string word_;
  std::string previous_;
  std::vector<uint64_t> hashes_;
};

bool IsAlnumAt(absl::string_view text, size_t at) {
  return at < text.size() && (absl::ascii_isalnum(static_cast<unsigned char>(text[at])) ||
                              static_cast<unsigned char>(text[at]) >= 0x80);
}
bool IsDigitAt(absl::string_view text, size_t at) {
  return at < text.size() && absl::ascii_isdigit(static_cast<unsigned char>(text[at]));
}

void AddAscii(absl::string_view text, size_t at, TermBuilder& terms) {
  const unsigned char c = static_cast<unsigned char>(text[at]);
  const bool in_word = !terms.word().empty();
  if (absl::ascii_isalnum(c)) {
    terms.word().push_back(absl::ascii_tolower(c));
  } else if (c == '.' && in_word && IsDigitAt(text, at - 1) && IsDigitAt(text, at + 1)) {
    terms.word().push_back('.');
  } else if (c == '\'' && in_word && IsAlnumAt(text, at + 1)) {
    return;
  } else if (c == '\n') {
    terms.EndLine();
  } else {
    terms.EndWord();
  }
}

}  // namespace

std::vector<uint64_t> TermHashes(absl::string_view text) {
  TermBuilder terms;
  for (size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      AddAscii(text, at++, terms);
      continue;
    }
    const CodePoint point = FirstCodePoint(text.substr(at));
    const absl::string_view bytes = text.substr(at, point.bytes);
    at += point.bytes;
    if (!point.valid) {
      terms.word().append(bytes.data(), bytes.size());
    } else if (point.value == 0x2019) {  // the typographic apostrophe
      if (terms.word().empty() || !IsAlnumAt(text, at)) terms.EndWord();
    } else if (IsSeparator(point.value)) {
      terms.EndWord();
    } else if (IsIdeograph(point.value)) {
      terms.EndWord();
      terms.word().append(bytes.data(), bytes.size());
      terms.EndWord();
    } else {
      AppendLower(bytes, point.value, terms.word());
    }
  }
  return terms.Take();
}

}  // namespace nestrec
