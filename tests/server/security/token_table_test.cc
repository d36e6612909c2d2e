#include "server/security/token_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Wrong(const std::string& text) {
  return std::string(TokenTable::Parse(text, "tokens").status().message());
}

TEST(TokenTable, FindsClientsByTokenOrItsDigest) {
  const auto table = TokenTable::Parse(
      "# clients\n\nshop  0123456789abcdef\r\n\toperator 00112233445566778899 admin\n"
      // printf sixteen-letters! | sha256sum
      "batch sha256:e178cfa9fadaf72ddef299ee2db3c05d7be0a6a6049afb2b153b5fbf136c472d\n",
      "tokens");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->size(), 3u);
  ASSERT_NE(table->Find("0123456789abcdef"), nullptr);
  EXPECT_EQ(table->Find("0123456789abcdef")->name, "shop");
  EXPECT_FALSE(table->Find("0123456789abcdef")->admin);
  EXPECT_TRUE(table->Find("00112233445566778899")->admin);
  EXPECT_EQ(table->Find("0123456789abcdee"), nullptr);
  EXPECT_EQ(table->Find("0123456789abcdef0"), nullptr);
  ASSERT_NE(table->Find("sixteen-letters!"), nullptr);
  EXPECT_EQ(table->Find("sixteen-letters!")->name, "batch");
  EXPECT_EQ(table->Find(""), nullptr);
  EXPECT_EQ(table->Find(std::string(1 << 20, 'x')), nullptr);
}

TEST(TokenTable, AClientMayHaveTwoTokens) {
  const auto table = TokenTable::Parse("shop 0123456789abcdef\nshop fedcba9876543210\n", "tokens");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->Find("fedcba9876543210")->name, "shop");
}

TEST(TokenTable, SaysWhichLineIsWrongAndNeverTheToken) {
  EXPECT_THAT(Wrong("\nshop"), HasSubstr("tokens:2: a line is a name, a token"));
  EXPECT_THAT(Wrong("shop 0123456789abcdef root"), HasSubstr("tokens:1: a line is"));
  EXPECT_THAT(Wrong("sh/op 0123456789abcdef"), HasSubstr("a name has at most 64"));
  EXPECT_THAT(Wrong("shop secret"),
              HasSubstr("the token of shop has 6 bytes; it needs 16 to 1024"));
  EXPECT_THAT(Wrong("shop secret"), Not(HasSubstr("secret,")));
  EXPECT_THAT(Wrong("shop sha256:12"), HasSubstr("followed by 64 hex digits, not by 2"));
  EXPECT_THAT(Wrong(absl::StrCat("shop sha256:", std::string(64, 'g'))),
              HasSubstr("64 hex digits"));
  EXPECT_THAT(Wrong("a 0123456789abcdef\nb 0123456789abcdef"),
              HasSubstr("tokens:2: the token of b is also that of a"));
  EXPECT_THAT(Wrong("# nobody\n"), HasSubstr("holds no token"));
}

}  // namespace
}  // namespace nestrec
