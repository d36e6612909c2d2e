#include "model/prepare/text_tokenizer.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace nestrec {
namespace {

// The hash of a term that is already as the tokenizer writes it: a single word.
uint64_t Word(const std::string& word) {
  const std::vector<uint64_t> hashes = TermHashes(word);
  EXPECT_EQ(hashes.size(), 1u) << word;
  return hashes.front();
}

// The words of a text that has no pairs: each on a line of its own.
void ExpectWords(const std::string& text, const std::vector<std::string>& words) {
  std::string lines;
  for (const std::string& word : words) lines += word + "\n";
  std::vector<uint64_t> expected = TermHashes(lines);
  ASSERT_EQ(expected.size(), words.size()) << text;
  std::vector<uint64_t> singles;
  const std::vector<uint64_t> terms = TermHashes(text);
  // word, word, pair, word, pair, ...
  for (size_t i = 0; i < terms.size(); i += i == 0 ? 1 : 2) singles.push_back(terms[i]);
  EXPECT_EQ(singles, expected) << text;
}

TEST(TermHashes, AreWordsAndPairsInOrder) {
  const std::vector<uint64_t> terms = TermHashes("red nail polish");
  ASSERT_EQ(terms.size(), 5u);
  EXPECT_EQ(terms[0], Word("red"));
  EXPECT_EQ(terms[1], Word("nail"));
  EXPECT_EQ(terms[3], Word("polish"));
  EXPECT_EQ(terms[2], TermHashes("red nail")[2]);
  EXPECT_EQ(terms[4], TermHashes("nail polish")[2]);
  EXPECT_NE(terms[2], TermHashes("nail red")[2]);
  EXPECT_NE(TermHashes("a bc")[2], TermHashes("ab c")[2]);
}

// Written down so that a change of the hash is noticed: files hold these numbers.
TEST(TermHashes, AreTheSameForever) {
  EXPECT_EQ(Word("soap"), 1149950967483245718ULL);
  EXPECT_EQ(TermHashes("soap dish")[2], 15944547038459614816ULL);
}

TEST(TermHashes, PairsEndWithTheLine) {
  EXPECT_EQ(TermHashes("a b\nc").size(), 4u);
  EXPECT_EQ(TermHashes("a\nb\nc").size(), 3u);
  EXPECT_EQ(TermHashes("").size(), 0u);
  EXPECT_EQ(TermHashes(" ,;--\n!").size(), 0u);
}

TEST(TermHashes, LowerCaseLatinGreekAndCyrillic) {
  EXPECT_EQ(Word("SOAP"), Word("soap"));
  EXPECT_EQ(Word("CRÈME"), Word("crème"));
  EXPECT_EQ(Word("ŁÓDŹ"), Word("łódź"));
  EXPECT_EQ(Word("ŽENA"), Word("žena"));
  EXPECT_EQ(Word("ΛΟΓΟΣ"), Word("λογοσ"));
  EXPECT_EQ(Word("МЫЛО"), Word("мыло"));
  EXPECT_EQ(Word("ЁЛКА"), Word("ёлка"));
  EXPECT_NE(Word("crème"), Word("creme"));
}

TEST(TermHashes, SplitAtSigns) {
  ExpectWords("Q-Tips, 12.5 fl. oz (Pack of 2)",
              {"q", "tips", "12.5", "fl", "oz", "pack", "of", "2"});
  ExpectWords("women's women\xe2\x80\x99s 'quoted' 2. x", {"womens", "womens", "quoted", "2", "x"});
  ExpectWords(
      "a\xc2\xa0"
      "b\xe2\x80\x94"
      "c\xe3\x80\x80"
      "d™e",
      {"a", "b", "c", "d", "e"});
}

TEST(TermHashes, TakeEveryIdeographAsAWord) {
  ExpectWords("abc石けんx", {"abc", "石", "け", "ん", "x"});
}

TEST(TermHashes, KeepBytesThatAreNotUtf8) {
  EXPECT_EQ(TermHashes("a\xff"
                       "b")
                .size(),
            1u);
  EXPECT_NE(TermHashes("a\xff"
                       "b"),
            TermHashes("a\xfe"
                       "b"));
}

}  // namespace
}  // namespace nestrec
