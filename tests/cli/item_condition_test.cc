#include "cli/item_condition.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <string>

namespace nestrec {
namespace {

using ::testing::HasSubstr;

void ExpectMeans(const std::string& condition, const std::string& filter) {
  v1::ItemFilter expected;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(filter, &expected)) << filter;
  const auto parsed = ParseCondition(condition);
  ASSERT_TRUE(parsed.ok()) << condition << ": " << parsed.status();
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(*parsed, expected))
      << condition << " gave " << parsed->ShortDebugString();
}

TEST(ItemCondition, ReadsEveryKind) {
  ExpectMeans("brand=A", R"(any_of { field: "brand" values { text: "A" } })");
  ExpectMeans(" brand = A b | C ",
              R"(any_of { field: "brand" values { text: "A b" } values { text: "C" } })");
  ExpectMeans("year=2020",
              R"(any_of { field: "year" values { text: "2020" } values { number: 2020 } })");
  ExpectMeans("new=true",
              R"(any_of { field: "new" values { text: "true" } values { flag: true } })");
  ExpectMeans("brand!=A", R"(none { filters { any_of { field: "brand" values { text: "A" } } } })");
  ExpectMeans("price<=20", R"(range { field: "price" max: 20 })");
  ExpectMeans("price<20", R"(range { field: "price" max: 20 exclude_max: true })");
  ExpectMeans("price >= -1.5e1", R"(range { field: "price" min: -15 })");
  ExpectMeans("price>5", R"(range { field: "price" min: 5 exclude_min: true })");
  ExpectMeans("in_stock", R"(exists: "in_stock")");
  ExpectMeans("!in_stock", R"(none { filters { exists: "in_stock" } })");
  ExpectMeans("formula=a=b", R"(any_of { field: "formula" values { text: "a=b" } })");
}

TEST(ItemCondition, RefusesWhatIsNone) {
  for (const char* text :
       {"", " ", "=A", "<=3", "!", "brand=", "brand!=", "price<", "price<cheap", "a!b"}) {
    const auto parsed = ParseCondition(text);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(parsed.status().message(), HasSubstr("write brand=A|B")) << text;
  }
}

TEST(ItemCondition, ReadsJsonAndSaysWhatIsWrongWithIt) {
  const auto filter = ParseFilterJson(
      R"({"every": {"filters": [{"exists": "a"}, {"range": {"field": "b", "max": 3}}]}})");
  ASSERT_TRUE(filter.ok()) << filter.status();
  EXPECT_EQ(filter->every().filters_size(), 2);
  EXPECT_THAT(ParseFilterJson("{").status().message(), HasSubstr("not a nestrec.v1.ItemFilter"));
  EXPECT_THAT(ParseFilterJson(R"({"every_one": 1})").status().message(), HasSubstr("every_one"));
}

TEST(ItemCondition, OneFilterStaysAsItIs) {
  v1::ItemFilter one;
  one.set_exists("a");
  EXPECT_EQ(EveryOf({one}).exists(), "a");
  EXPECT_EQ(EveryOf({one, one}).every().filters_size(), 2);
}

TEST(Cap, NamesAFieldAndANumber) {
  EXPECT_EQ(ParseCap("brand=2")->field(), "brand");
  EXPECT_EQ(ParseCap("a=b=3")->most(), 3u);
  for (const char* text : {"", "brand", "brand=", "=2", "brand=two", "brand=-1"}) {
    EXPECT_FALSE(ParseCap(text).ok()) << text;
  }
}

}  // namespace
}  // namespace nestrec
