#include "model/prepare/event_reader.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/prepare/event_time.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class EventReaderTest : public ::testing::Test {
 protected:
  // "user item time rating" for every event; the error when there is one.
  std::vector<std::string> Read(const std::string& content, const EventFormat& format = {},
                                const std::string& name = "log") {
    EXPECT_TRUE(WriteFileAtomically(folder_.File(name), content).ok());
    bad_ = BadLines(100, std::nullopt);
    std::vector<std::string> events;
    const auto lines = ReadEvents(
        folder_.File(name), format, bad_, [](double) {},
        [&events](const RawEvent& event) {
          events.push_back(absl::StrCat(event.user, " ", event.item, " ", event.time.whole));
          if (event.rating.has_value()) absl::StrAppend(&events.back(), " ", *event.rating);
          return absl::OkStatus();
        });
    if (!lines.ok()) return {std::string(lines.status().message())};
    EXPECT_EQ(*lines, static_cast<int64_t>(events.size()) + bad_.count());
    return events;
  }
  // "line: what" of every bad line.
  std::vector<std::string> Bad() const {
    std::vector<std::string> messages;
    for (const std::string& message : bad_.messages())
      messages.push_back(message.substr(folder_.File("log").size() + 1));
    return messages;
  }

  TempFolder folder_;
  BadLines bad_{100, std::nullopt};
};

TEST_F(EventReaderTest, FindsColumnsByTheHeadersNamesInAnyOrderAndCase) {
  EXPECT_THAT(Read("Timestamp,extra,ITEM_ID,user_id\n5,x,i 1,Ann Lee\n\n6,y,\"i,2\",Jürgen\n"),
              ElementsAre("Ann Lee i 1 5", "Jürgen i,2 6"));
  EXPECT_THAT(Read("visitorid\tevent_time\titemid\n1\t5\t7\n"), ElementsAre("1 7 5"));
}

TEST_F(EventReaderTest, TakesColumnsFromTheFlagWhenThereIsNoHeader) {
  EventFormat format;
  format.columns = {"user", "item", "rating", "timestamp"};
  format.with_ratings = true;
  EXPECT_THAT(Read("A1,B1,5.0,100\nA2,B2,1,200\n", format),
              ElementsAre("A1 B1 100 5", "A2 B2 200 1"));
  EXPECT_THAT(Read("User,Item,Rating,Timestamp\nA1,B1,5.0,100\n", format),
              ElementsAre("A1 B1 100 5"));
  EXPECT_THAT(Read("1::1193::5::978300760\n", format, "ratings.dat"),
              ElementsAre("1 1193 978300760 5"));
}

TEST_F(EventReaderTest, TakesOtherNamesFromFlags) {
  EventFormat format;
  format.user_field = "who";
  format.item_field = "what";
  format.timestamp_field = "when";
  EXPECT_THAT(Read("what,item,who,user,when\na,b,c,d,1\n", format), ElementsAre("c a 1"));
  EXPECT_THAT(Read("{\"what\":\"a\",\"item\":\"b\",\"who\":\"c\",\"when\":1}\n", format),
              ElementsAre("c a 1"));
}

TEST_F(EventReaderTest, ReadsTheAmazonReviewForm) {
  const std::string line =
      R"({"reviewerID": "A1YJ", "asin": "7806397051", "reviewerName": "a \"b\"", "helpful": [3, 4], )"
      R"("reviewText": "Very\noily", "overall": 1.0, "summary": "x", "unixReviewTime": 1391040000, "reviewTime": "01 30, 2014"})";
  EventFormat format;
  format.with_ratings = true;
  EXPECT_THAT(Read(line + "\n\n" + line, format),
              ElementsAre("A1YJ 7806397051 1391040000 1", "A1YJ 7806397051 1391040000 1"));
  EXPECT_THAT(
      Read(R"({"user_id":"U","parent_asin":"P","asin":"C","timestamp":1588615855070,"rating":5.0})"
           "\n",
           format, "x.jsonl"),
      ElementsAre("U P 1588615855070 5"));
}

TEST_F(EventReaderTest, TakesNumbersAsIds) {
  EXPECT_THAT(Read("{\"user\":7,\"item\":8,\"ts\":\"2014-07-01T00:00:00Z\"}\n"),
              ElementsAre("7 8 1404172800"));
}

TEST_F(EventReaderTest, CountsBadLinesAndSaysWhatIsWrong) {
  const std::string long_id(2000, 'x');
  EXPECT_THAT(Read(absl::StrCat("user,item,timestamp\nu,i,1\nu,i\nu,i,1,2\n,i,1\nu,,1\nu,i,"
                                "yesterday\nu,i,\n\"u,i,2\nu\xff,i,1\n",
                                long_id, ",i,1\nu,j,2\n")),
              ElementsAre("u i 1", "u j 2"));
  EXPECT_THAT(
      Bad(),
      ElementsAre("3: 2 fields, but there are 3 columns", "4: 4 fields, but there are 3 columns",
                  "5: the user is empty", "6: the item is empty",
                  "7: 'yesterday' is no time (a number or ISO 8601)",
                  "8: '' is no time (a number or ISO 8601)", "9: a quoted field is never closed",
                  "10: the user id is not UTF-8; convert the file with iconv",
                  "11: the user id is longer than 1024 bytes"));
}

TEST_F(EventReaderTest, CountsBadJsonLines) {
  EXPECT_THAT(Read("{\"user\":\"u\",\"item\":\"i\",\"ts\":1}\n{\"user\":\"u\"\n[1]\n{\"user\":"
                   "\"u\",\"ts\":1}\n"
                   "{\"user\":[1],\"item\":\"i\",\"ts\":1}\n{\"user\":\"u\",\"item\":\"i\"}\n"),
              ElementsAre("u i 1"));
  EXPECT_THAT(Bad(), ElementsAre("2: column 12: the object is not closed", "3: not a JSON object",
                                 HasSubstr("4: no item"), HasSubstr("5: no user"),
                                 HasSubstr("6: no timestamp")));
}

TEST_F(EventReaderTest, ReadsRatingsOnlyWhenAskedTo) {
  const std::string log = "user,item,timestamp,rating\nu,i,1,good\nu,i,2,\nu,i,3,4.5\n";
  EXPECT_THAT(Read(log), ElementsAre("u i 1", "u i 2", "u i 3"));
  EventFormat format;
  format.with_ratings = true;
  EXPECT_THAT(Read(log, format), ElementsAre("u i 2", "u i 3 4.5"));
  EXPECT_THAT(Bad(), ElementsAre("2: 'good' is no rating (a number)"));
}

TEST_F(EventReaderTest, CanDoWithoutTimes) {
  EventFormat format;
  format.without_timestamps = true;
  EXPECT_THAT(Read("user,item\nu,b\nu,a\n", format), ElementsAre("u b 0", "u a 0"));
}

TEST_F(EventReaderTest, SaysWhichColumnIsMissingAndHowToNameIt) {
  EXPECT_THAT(Read("A1,B1,5.0,100\n"),
              ElementsAre(HasSubstr("--columns user,item,timestamp,rating")));
  EXPECT_THAT(Read("user,item\nu,i\n"),
              ElementsAre(HasSubstr("no timestamp column; its columns are 'user', 'item'")));
  EventFormat format;
  format.with_ratings = true;
  EXPECT_THAT(Read("user,item,ts\nu,i,1\n", format), ElementsAre(HasSubstr("--rating-field")));
}

TEST_F(EventReaderTest, AnEmptyFileHasNoEvents) {
  EXPECT_THAT(Read(""), ElementsAre());
  EXPECT_THAT(Read("user,item,timestamp\n"), ElementsAre());
  EXPECT_THAT(Read("\n\n", {}, "x.jsonl"), ElementsAre());
}

TEST_F(EventReaderTest, StopsAtTheLimitOfBadLines) {
  ASSERT_TRUE(WriteFileAtomically(folder_.File("log"), "user,item,ts\nu\nv\nw\n").ok());
  const auto read = [this](int64_t limit) {
    BadLines bad(10, limit);
    return ReadEvents(
        folder_.File("log"), {}, bad, [](double) {},
        [](const RawEvent&) { return absl::OkStatus(); });
  };
  EXPECT_TRUE(read(3).ok());
  EXPECT_THAT(std::string(read(2).status().message()),
              HasSubstr("more than 2 lines cannot be used"));
  EXPECT_THAT(std::string(read(0).status().message()),
              HasSubstr("log:2: 1 field, but there are 3 columns"));
}

TEST(EventTime, ReadsNumbersAndIso8601) {
  const struct {
    const char* text;
    int64_t whole;
    int32_t nanos;
  } cases[] = {
      {"978300760", 978300760, 0},
      {" 978300760.5 ", 978300760, 500000000},
      {"-1.25", -2, 750000000},
      {"-0.5", -1, 500000000},
      {"1.", 1, 0},
      {"1588615855070", 1588615855070, 0},
      {"1700000000123456789", 1700000000123456789, 0},
      {"1700000000.123456789", 1700000000, 123456789},
      {"1.4e9", 1400000000, 0},
      {"1970-01-02", 86400, 0},
      {"1970-01-01T00:01", 60, 0},
      {"1970-01-01 00:00:01.25", 1, 250000000},
      {"1970-01-01T00:00:01Z", 1, 0},
      {"1970-01-01T02:00:01+02:00", 1, 0},
      {"1970-01-01T02:00:01+0200", 1, 0},
      {"1969-12-31T23:59:59.5Z", -1, 500000000},
  };
  for (const auto& test : cases) {
    const auto time = ParseEventTime(test.text);
    ASSERT_TRUE(time.has_value()) << test.text;
    EXPECT_EQ(time->whole, test.whole) << test.text;
    EXPECT_EQ(time->nanos, test.nanos) << test.text;
  }
  for (const char* text : {"", "x", "nan", "inf", "1e30", "12:30", "2014-13-01", "2014-02-30",
                           "1970-01-01T25:00:00", "infinite-future", "1,5", "0x10", "."}) {
    EXPECT_FALSE(ParseEventTime(text).has_value()) << text;
  }
}

TEST(EventTime, OrdersFractions) {
  EXPECT_LT(*ParseEventTime("-1.5"), *ParseEventTime("-1.25"));
  EXPECT_LT(*ParseEventTime("-1"), *ParseEventTime("-0.9"));
  EXPECT_LT(*ParseEventTime("1700000000.1"), *ParseEventTime("1700000000.2"));
}

}  // namespace
}  // namespace nestrec
