#include "model/prepare/literal_parser.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "nlohmann/json.hpp"

namespace nestrec {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMaxDepth = 64;

void AppendUtf8(std::string& out, char32_t value) {
  const auto tail = [&out, value](int shift) {
    out.push_back(static_cast<char>(0x80 | (value >> shift & 0x3f)));
  };
  if (value < 0x80) {
    out.push_back(static_cast<char>(value));
  } else if (value < 0x800) {
    out.push_back(static_cast<char>(0xc0 | value >> 6));
    tail(0);
  } else if (value < 0x10000) {
    out.push_back(static_cast<char>(0xe0 | value >> 12));
    tail(6);
    tail(0);
  } else {
    out.push_back(static_cast<char>(0xf0 | value >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

class Parser {
 public:
  explicit Parser(absl::string_view text) : text_(text) {}

  absl::StatusOr<Json> ParseAll() {
    NESTREC_ASSIGN_OR_RETURN(Json value, ParseValue(0));
    SkipSpaces();
    if (at_ < text_.size()) return Error("text after the value");
    return value;
  }

 private:
  absl::Status Error(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("column ", at_ + 1, ": ", what));
  }
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  char PeekAfter() const { return at_ + 1 < text_.size() ? text_[at_ + 1] : '\0'; }
  void SkipSpaces() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) {
      ++at_;
    }
  }
  bool SkipWord(absl::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }
  static bool IsQuote(char c) { return c == '"' || c == '\''; }

  absl::StatusOr<Json> ParseValue(int depth) {
    if (depth > kMaxDepth) return Error(absl::StrCat("nested deeper than ", kMaxDepth));
    SkipSpaces();
    const char c = Peek();
    if (c == '{') return ParseObject(depth);
    if (c == '[') return ParseList(depth, ']');
    if (c == '(') return ParseList(depth, ')');
    if (IsQuote(c) || ((c == 'u' || c == 'b') && IsQuote(PeekAfter()))) {
      NESTREC_ASSIGN_OR_RETURN(std::string text, ParseString());
      return Json(std::move(text));
    }
    if (c == '-' || (c >= '0' && c <= '9')) return ParseNumber();
    if (SkipWord("true") || SkipWord("True")) return Json(true);
    if (SkipWord("false") || SkipWord("False")) return Json(false);
    if (SkipWord("null") || SkipWord("None")) return Json(nullptr);
    if (at_ >= text_.size()) return Error("the text ends where a value is expected");
    return Error("neither a string, a number, a list nor an object");
  }

  absl::StatusOr<Json> ParseObject(int depth) {
    Json object = Json::object();
    ++at_;
    SkipSpaces();
    while (Peek() != '}') {
      if ((Peek() == 'u' || Peek() == 'b') && !IsQuote(PeekAfter()))
        return Error("a key must be a string");
      if (!IsQuote(Peek()) && Peek() != 'u' && Peek() != 'b') {
        return Error(at_ >= text_.size() ? "the object is not closed" : "a key must be a string");
      }
      NESTREC_ASSIGN_OR_RETURN(std::string key, ParseString());
      SkipSpaces();
      if (Peek() != ':') return Error("':' expected after the key");
      ++at_;
      NESTREC_ASSIGN_OR_RETURN(Json value, ParseValue(depth + 1));
      object[std::move(key)] = std::move(value);
      NESTREC_RETURN_IF_ERROR(SkipComma('}', "the object is not closed"));
    }
    ++at_;
    return object;
  }

  absl::StatusOr<Json> ParseList(int depth, char close) {
    Json list = Json::array();
    ++at_;
    SkipSpaces();
    while (Peek() != close) {
      NESTREC_ASSIGN_OR_RETURN(Json value, ParseValue(depth + 1));
      list.push_back(std::move(value));
      NESTREC_RETURN_IF_ERROR(SkipComma(close, "the list is not closed"));
    }
    ++at_;
    return list;
  }

  absl::Status SkipComma(char close, absl::string_view not_closed) {
    SkipSpaces();
    if (Peek() == ',') {
      ++at_;
      SkipSpaces();
      return at_ < text_.size() ? absl::OkStatus() : Error(not_closed);
    }
    if (Peek() == close) return absl::OkStatus();
    return Error(at_ >= text_.size() ? not_closed : absl::string_view("',' expected"));
  }

  absl::StatusOr<std::string> ParseString() {
    if (!IsQuote(Peek())) ++at_;  // u or b
    const char quote = text_[at_++];
    std::string out;
    while (true) {
      const size_t stop = text_.find_first_of(quote == '"' ? "\"\\" : "'\\", at_);
      if (stop == absl::string_view::npos) {
        at_ = text_.size();
        return Error("the string is not closed");
      }
      const absl::string_view plain = text_.substr(at_, stop - at_);
      if (!IsValidUtf8(plain)) return Error("the string is not UTF-8; convert the file with iconv");
      out.append(plain.data(), plain.size());
      at_ = stop + 1;
      if (text_[stop] == quote) return out;
      NESTREC_RETURN_IF_ERROR(ParseEscape(out));
    }
  }

  absl::Status ParseEscape(std::string& out) {
    const char kind = Peek();
    ++at_;
    switch (kind) {
      case 'n':
        out.push_back('\n');
        return absl::OkStatus();
      case 't':
        out.push_back('\t');
        return absl::OkStatus();
      case 'r':
        out.push_back('\r');
        return absl::OkStatus();
      case 'b':
        out.push_back('\b');
        return absl::OkStatus();
      case 'f':
        out.push_back('\f');
        return absl::OkStatus();
      case 'v':
        out.push_back('\v');
        return absl::OkStatus();
      case 'a':
        out.push_back('\a');
        return absl::OkStatus();
      case '0':
        out.push_back('\0');
        return absl::OkStatus();
      case '"':
      case '\'':
      case '\\':
      case '/':
        out.push_back(kind);
        return absl::OkStatus();
      case 'x':
        return ParseCodePoint(2, out);
      case 'u':
        return ParseCodePoint(4, out);
      case 'U':
        return ParseCodePoint(8, out);
      default:
        --at_;
        return Error("unknown escape after '\\'");
    }
  }

  absl::StatusOr<char32_t> ParseHex(size_t digits) {
    const absl::string_view hex = text_.substr(at_, digits);
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), value, 16);
    if (hex.size() < digits || error != std::errc() || end != hex.data() + hex.size()) {
      return Error(absl::StrCat(digits, " hexadecimal digits expected"));
    }
    at_ += digits;
    return value;
  }

  absl::Status ParseCodePoint(size_t digits, std::string& out) {
    NESTREC_ASSIGN_OR_RETURN(char32_t value, ParseHex(digits));
    if (value >= 0xd800 && value <= 0xdbff && SkipWord("\\u")) {
      NESTREC_ASSIGN_OR_RETURN(const char32_t low, ParseHex(4));
      if (low < 0xdc00 || low > 0xdfff) return Error("half of a surrogate pair");
      value = 0x10000 + ((value - 0xd800) << 10) + (low - 0xdc00);
    }
    if (value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
      return Error("not a Unicode character");
    AppendUtf8(out, value);
    return absl::OkStatus();
  }

  absl::StatusOr<Json> ParseNumber() {
    const size_t end = std::min(text_.find_first_not_of("+-.0123456789eE", at_), text_.size());
    const absl::string_view word = text_.substr(at_, end - at_);
    if (word.find_first_of(".eE") == absl::string_view::npos) {
      int64_t integer = 0;
      if (absl::SimpleAtoi(word, &integer)) {
        at_ = end;
        if (Peek() == 'L') ++at_;  // Python 2's long
        return Json(integer);
      }
      uint64_t positive = 0;
      if (absl::SimpleAtoi(word, &positive)) {
        at_ = end;
        return Json(positive);
      }
    }
    double value = 0;
    if (!absl::SimpleAtod(word, &value) || !std::isfinite(value))
      return Error("not a number that can be held");
    at_ = end;
    return Json(value);
  }

  absl::string_view text_;
  size_t at_ = 0;
};

}  // namespace

absl::StatusOr<Json> ParseLiteral(absl::string_view text) { return Parser(text).ParseAll(); }

}  // namespace nestrec
