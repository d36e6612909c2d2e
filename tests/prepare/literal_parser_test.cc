#include "model/prepare/literal_parser.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace nestrec {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::HasSubstr;

std::string Parsed(absl::string_view text) {
  const auto value = ParseLiteral(text);
  return value.ok() ? value->dump() : std::string(value.status().message());
}

TEST(LiteralParser, ReadsPythonDicts) {
  EXPECT_EQ(
      Parsed(
          R"({'asin': u'B01', "title": "Women's \"Best\"", 'price': 12.5, 'none': None, 'yes': True, 'no': False,)"
          R"( 'categories': [['Beauty', 'Hair'], ['X',]], 'pair': ('a', 1), 'rank': 12L, 'neg': -3, 'd': {},})"),
      R"({"asin":"B01","title":"Women's \"Best\"","price":12.5,"none":null,"yes":true,"no":false,)"
      R"("categories":[["Beauty","Hair"],["X"]],"pair":["a",1],"rank":12,"neg":-3,"d":{}})");
}

TEST(LiteralParser, ReadsEscapesOfBothLanguages) {
  EXPECT_EQ(Parsed(R"('it\'s \xe9 \u00e9 \U0001F600 \n\t\\')"), Json("it's é é 😀 \n\t\\").dump());
  EXPECT_EQ(Parsed(R"("\ud83d\ude00 \/ \b\f")"), Json("😀 / \b\f").dump());
}

TEST(LiteralParser, NamesTheColumnOfAnError) {
  EXPECT_THAT(Parsed("{'a': }"), HasSubstr("column 7"));
  EXPECT_THAT(Parsed("{'a': 1"), HasSubstr("the object is not closed"));
  EXPECT_THAT(Parsed("{'a': 1,"), HasSubstr("the object is not closed"));
  EXPECT_THAT(Parsed("[1, 2"), HasSubstr("the list is not closed"));
  EXPECT_THAT(Parsed("{'a' 1}"), HasSubstr("column 6: ':' expected"));
  EXPECT_THAT(Parsed("{1: 2}"), HasSubstr("a key must be a string"));
  EXPECT_THAT(Parsed("{None: 2}"), HasSubstr("a key must be a string"));
  EXPECT_THAT(Parsed("['a' 'b']"), HasSubstr("',' expected"));
  EXPECT_THAT(Parsed("'abc"), HasSubstr("the string is not closed"));
  EXPECT_THAT(Parsed("'abc\\"), HasSubstr("unknown escape"));
  EXPECT_THAT(Parsed(R"("\ud83d")"), HasSubstr("not a Unicode character"));
  EXPECT_THAT(Parsed(R"("\ud83d\u0041")"), HasSubstr("half of a surrogate pair"));
  EXPECT_THAT(Parsed(R"("\u12g4")"), HasSubstr("hexadecimal"));
  EXPECT_THAT(Parsed(R"("\u1)"), HasSubstr("hexadecimal"));
  EXPECT_THAT(Parsed("1e999"), HasSubstr("not a number"));
  EXPECT_THAT(Parsed("1.2.3"), HasSubstr("not a number"));
  EXPECT_THAT(Parsed("{} x"), HasSubstr("text after the value"));
  EXPECT_THAT(Parsed(""), HasSubstr("the text ends"));
  EXPECT_THAT(Parsed("__import__('os')"), HasSubstr("neither a string"));
  EXPECT_THAT(Parsed("\"\xff\""), HasSubstr("not UTF-8"));
  EXPECT_THAT(Parsed(std::string(100000, '[')), HasSubstr("nested deeper than 64"));
}

Json RandomValue(Random& random, int depth) {
  switch (random.Index(depth > 3 ? 5 : 7)) {
    case 0:
      return nullptr;
    case 1:
      return random.Index(2) == 0;
    case 2:
      return random.Index(2) == 0 ? static_cast<int64_t>(random.Next()) : random.Index(100);
    case 3:
      return random.Normal() * 1e6;
    case 4: {
      std::string text;
      for (int64_t n = random.Index(10); n > 0; --n) {
        constexpr const char* kParts[] = {"a", "\"", "'", "\\", "\n", "é", "😀", "\x01", "u'", "/"};
        text += kParts[random.Index(10)];
      }
      return text;
    }
    case 5: {
      Json list = Json::array();
      for (int64_t n = random.Index(4); n > 0; --n) list.push_back(RandomValue(random, depth + 1));
      return list;
    }
    default: {
      Json object = Json::object();
      for (int64_t n = random.Index(4); n > 0; --n)
        object[absl::StrCat("k", n)] = RandomValue(random, depth + 1);
      return object;
    }
  }
}

TEST(LiteralParser, AgreesWithTheJsonLibraryOnJson) {
  Random random(3);
  for (int i = 0; i < 2000; ++i) {
    const Json value = RandomValue(random, 0);
    const std::string text =
        value.dump(static_cast<int>(random.Index(3)) - 1, ' ', random.Index(2) == 0);
    const auto parsed = ParseLiteral(text);
    ASSERT_TRUE(parsed.ok()) << text << parsed.status();
    ASSERT_EQ(*parsed, value) << text;
  }
}

TEST(LiteralParser, NeverFailsOtherwiseThanWithAStatus) {
  Random random(4);
  const std::string good = R"({'a': [1, "b\u00e9", (None, {'c': -2.5e3})], "d": u'x'})";
  for (int i = 0; i < 5000; ++i) {
    std::string text = good;
    for (int64_t n = 1 + random.Index(3); n > 0; --n) {
      text[static_cast<size_t>(random.Index(static_cast<int64_t>(text.size())))] =
          static_cast<char>(random.Index(256));
    }
    ParseLiteral(
        text.substr(0, static_cast<size_t>(random.Index(static_cast<int64_t>(text.size()) + 1))))
        .IgnoreError();
  }
}

}  // namespace
}  // namespace nestrec
