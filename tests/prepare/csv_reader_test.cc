#include "model/prepare/csv_reader.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/file.h"
#include "base/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;

// "line: a|b|c" for every record, "line: !error" for a bad one.
std::vector<std::string> Read(const std::string& content, const std::string& delimiter = ",") {
  const TempFolder folder;
  EXPECT_TRUE(WriteFileAtomically(folder.File("a.csv"), content).ok());
  const auto lines = LineReader::Open(folder.File("a.csv"));
  CsvReader reader(**lines, delimiter);
  std::vector<std::string> records;
  while (true) {
    const auto record = reader.Next();
    EXPECT_TRUE(record.ok()) << record.status();
    if (!record->has_value()) return records;
    records.push_back(absl::StrCat((*record)->line, ": ",
                                   (*record)->error.empty()
                                       ? absl::StrJoin((*record)->fields, "|")
                                       : absl::StrCat("!", (*record)->error.substr(0, 16))));
  }
}

TEST(CsvReader, SplitsPlainAndQuotedFields) {
  EXPECT_THAT(Read("a,b,c\r\n\"x, y\",\"say \"\"hi\"\"\",\n\n , z , \n\"\",,\"\" \n"),
              ElementsAre("1: a|b|c", "2: x, y|say \"hi\"|", "4: |z|", "5: ||"));
}

TEST(CsvReader, KeepsLineEndsInsideQuotes) {
  EXPECT_THAT(Read("a,\"one\ntwo\n\nthree\",b\nnext,1,2\n"),
              ElementsAre("1: a|one\ntwo\n\nthree|b", "5: next|1|2"));
}

TEST(CsvReader, AQuoteInsideAPlainFieldIsAnOrdinaryCharacter) {
  EXPECT_THAT(Read("5\" pipe,b\n"), ElementsAre("1: 5\" pipe|b"));
}

TEST(CsvReader, AQuoteThatIsNeverClosedSpoilsItsLineOnly) {
  EXPECT_THAT(Read("a,b\n\"open,1\nc,d\ne,f\n"),
              ElementsAre("1: a|b", "2: !a quoted field i", "3: c|d", "4: e|f"));
  EXPECT_THAT(Read("\"a\"b,c\nd,e\n"), ElementsAre("1: !text after a clo", "2: d|e"));
}

TEST(CsvReader, TakesDelimitersOfAnyLength) {
  EXPECT_THAT(Read("1::1193::5::978300760\n", "::"), ElementsAre("1: 1|1193|5|978300760"));
  EXPECT_THAT(Read("a b\t\"c\td\"\te\n", "\t"), ElementsAre("1: a b|c\td|e"));
  EXPECT_EQ(CsvReader::GuessDelimiter("1::2::3"), "::");
  EXPECT_EQ(CsvReader::GuessDelimiter("a\tb\tc,d"), "\t");
  EXPECT_EQ(CsvReader::GuessDelimiter("a;b"), ";");
  EXPECT_EQ(CsvReader::GuessDelimiter("abc"), ",");
  EXPECT_EQ(CsvReader::GuessDelimiter(""), ",");
}

TEST(CsvReader, ReadsBackWhatACsvWriterWrites) {
  Random random(5);
  std::string content;
  std::vector<std::string> expected;
  int64_t line = 1;
  for (int r = 0; r < 500; ++r) {
    std::vector<std::string> fields;
    for (int f = 0; f < 3; ++f) {
      std::string field = "x";
      for (int64_t n = random.Index(8); n > 0; --n)
        field.push_back("ab,\"\n \xc3\xa9"[random.Index(8)]);
      fields.push_back(field + "y");
    }
    expected.push_back(absl::StrCat(line, ": ", absl::StrJoin(fields, "|")));
    for (std::string& field : fields) {
      line += std::count(field.begin(), field.end(), '\n');
      field = absl::StrCat("\"", absl::StrReplaceAll(field, {{"\"", "\"\""}}), "\"");
    }
    ++line;
    absl::StrAppend(&content, absl::StrJoin(fields, ","), "\n");
  }
  EXPECT_EQ(Read(content), expected);
}

}  // namespace
}  // namespace nestrec
