#include "base/json_text.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace nestrec {
namespace {

TEST(JsonText, AnotherParserReadsBackWhatItWrote) {
  for (const std::string& text :
       {std::string("plain"), std::string(), std::string("say \"hi\" \\ there"),
        std::string("a\nb\tc\rd\0e\x1f\x7f", 11), std::string("品目 😀 caf\xc3\xa9"),
        std::string("\xc2\x85")}) {
    EXPECT_EQ(nlohmann::json::parse(JsonText(text)).get<std::string>(), text);
  }
}

TEST(JsonText, WhatIsNotUtf8BecomesTheReplacementCharacter) {
  EXPECT_EQ(nlohmann::json::parse(JsonText("caf\xe9 \xff\xfe")).get<std::string>(),
            "caf\xef\xbf\xbd \xef\xbf\xbd\xef\xbf\xbd");
}

TEST(JsonText, ControlCharactersDoNotReachATerminal) {
  EXPECT_EQ(JsonText("\x1b[31m\xc2\x9b"), "\"\\u001b[31m\\u009b\"");
}

}  // namespace
}  // namespace nestrec
