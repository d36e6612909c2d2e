#include "server/filter_reader.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/catalogue_attributes.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FilterReaderTest : public ::testing::Test {
 protected:
  static v1::ItemFilter Parse(const std::string& text) {
    v1::ItemFilter filter;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &filter)) << text;
    return filter;
  }
  // The items that meet the filter.
  std::vector<int32_t> Items(const std::string& text) const {
    std::vector<FieldViolation> violations;
    const auto predicate = ReadFilter(Parse(text), {}, table_, violations);
    EXPECT_THAT(violations, IsEmpty()) << text;
    return predicate.has_value() ? Matching(*predicate, table_)->Items() : std::vector<int32_t>{-1};
  }
  // The only violation, as "field: description".
  std::string Violation(const v1::ItemFilter& filter) const {
    std::vector<FieldViolation> violations;
    EXPECT_FALSE(ReadFilter(filter, {}, table_, violations).has_value());
    EXPECT_EQ(violations.size(), 1u);
    return violations.empty() ? ""
                              : absl::StrCat(violations[0].field, ": ", violations[0].description);
  }
  std::string Violation(const std::string& text) const { return Violation(Parse(text)); }

  Catalogue catalogue_ = *Catalogue::Create(
      {"1", "2", "3", "4"},
      {R"({"brand": "A", "price": "12.50", "categories": [["Bath", "Soap"], ["Gift"]], "new": true})",
       R"({"brand": "B", "price": 20, "categories": ["Bath"], "new": false, "note": null})",
       R"({"brand": "Ä", "rank": {"Beauty": 7, "Home": 900}})", "no JSON"});
  AttributeTable table_ = ReadAttributes(catalogue_, {})->table;
};

TEST_F(FilterReaderTest, FindsTextsNumbersFlagsAndWhatIsInLists) {
  EXPECT_THAT(Items(R"(any_of { field: "brand" values { text: "A" } values { text: "Ä" } })"),
              ElementsAre(1, 3));
  EXPECT_THAT(Items(R"(any_of { field: "categories" values { text: "Soap" } })"), ElementsAre(1));
  EXPECT_THAT(
      Items(R"(all_of { field: "categories" values { text: "Bath" } values { text: "Gift" } })"),
      ElementsAre(1));
  EXPECT_THAT(Items(R"(any_of { field: "new" values { flag: false } })"), ElementsAre(2));
  EXPECT_THAT(Items(R"(any_of { field: "rank" values { number: 900 } })"), ElementsAre(3));
}

TEST_F(FilterReaderTest, ATextThatIsANumberCountsAsBoth) {
  EXPECT_THAT(Items(R"(range { field: "price" max: 15 })"), ElementsAre(1));
  EXPECT_THAT(Items(R"(any_of { field: "price" values { text: "12.50" } })"), ElementsAre(1));
  EXPECT_THAT(Items(R"(range { field: "price" min: 12.5 exclude_min: true })"), ElementsAre(2));
}

TEST_F(FilterReaderTest, CombinesConditions) {
  EXPECT_THAT(Items(R"(none { filters { exists: "price" } })"), ElementsAre(3, 4));
  EXPECT_THAT(Items(R"(every { filters { exists: "price" }
                               filters { none { filters { any_of { field: "brand" values { text: "A" } } } } } })"),
              ElementsAre(2));
  EXPECT_THAT(Items(R"(some { filters { exists: "rank" } filters { exists: "new" } })"),
              ElementsAre(1, 2, 3));
}

TEST_F(FilterReaderTest, NamesWhatIsWrongByItsPath) {
  EXPECT_THAT(Violation(""), HasSubstr("filter: has no condition; set one of"));
  EXPECT_THAT(Violation(R"(exists: "colour")"),
              HasSubstr("filter.exists: no item has a field \"colour\"; the fields are brand, "));
  EXPECT_EQ(Violation(R"(exists: "")"), "filter.exists: is empty; name a field of the catalogue");
  EXPECT_THAT(Violation(R"(any_of { field: "note" values { text: "x" } })"),
              HasSubstr("filter.any_of.field: no item has a field \"note\""));
  EXPECT_EQ(Violation(R"(any_of { field: "brand" })"),
            "filter.any_of.values: is empty; give at least one value");
  EXPECT_EQ(Violation(R"(all_of { field: "brand" values { text: "A" } values { } })"),
            "filter.all_of.values[1]: has no value; set one of text, number and flag");
  EXPECT_EQ(Violation(R"(any_of { field: "price" values { number: nan } })"),
            "filter.any_of.values[0]: nan is not a finite number");
  EXPECT_EQ(Violation(R"(some { })"), "filter.some.filters: is empty; give at least one filter");
  EXPECT_THAT(
      Violation(
          R"(every { filters { exists: "brand" } filters { range { field: "brand" min: 1 } } })"),
      HasSubstr("filter.every.filters[1].range: no item has a number in the field \"brand\""));
  EXPECT_THAT(Violation(R"(range { field: "price" })"), HasSubstr("neither min nor max"));
  EXPECT_THAT(Violation(R"(range { field: "price" min: nan })"), HasSubstr("is not a number"));
}

TEST_F(FilterReaderTest, BoundsDepthConditionsValuesAndBytes) {
  v1::ItemFilter filter = Parse(R"(exists: "brand")");
  for (int depth = 0; depth < 7; ++depth) {
    v1::ItemFilter outer;
    *outer.mutable_none()->add_filters() = filter;
    filter = outer;
  }
  std::vector<FieldViolation> violations;
  EXPECT_TRUE(ReadFilter(filter, {}, table_, violations).has_value());
  v1::ItemFilter outer;
  *outer.mutable_none()->add_filters() = filter;
  EXPECT_THAT(Violation(outer), HasSubstr(".none.filters[0]: is nested more than 8 deep"));

  filter.Clear();
  for (int i = 0; i < 200; ++i) filter.mutable_some()->add_filters()->set_exists("brand");
  EXPECT_THAT(Violation(filter), HasSubstr("filter.some.filters[199]: is one of more than 200"));

  filter.Clear();
  filter.mutable_any_of()->set_field("brand");
  for (int i = 0; i < 10'001; ++i) filter.mutable_any_of()->add_values()->set_text("x");
  EXPECT_THAT(Violation(filter), HasSubstr("filter.any_of.values: 10001 values"));

  filter.Clear();
  filter.mutable_any_of()->set_field("brand");
  filter.mutable_any_of()->add_values()->set_text(std::string(129, 'x'));
  EXPECT_EQ(Violation(filter), "filter.any_of.values[0]: has 129 bytes; at most 128 are allowed");
  filter.set_exists(std::string(65, 'x'));
  EXPECT_EQ(Violation(filter), "filter.exists: has 65 bytes; at most 64 are allowed");
}

TEST_F(FilterReaderTest, KeepsOnlyTheConfiguredFields) {
  const AttributeTable table = ReadAttributes(catalogue_, {"brand"})->table;
  EXPECT_THAT(table.FieldNames(), ElementsAre("brand"));
}

}  // namespace
}  // namespace nestrec
