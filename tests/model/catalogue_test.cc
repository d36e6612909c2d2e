#include "model/catalogue.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/item_record.h"
#include "nlohmann/json.hpp"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Catalogue, FindsItemsByIdAndIdsByItem) {
  const auto catalogue =
      Catalogue::Create({"B01", "crème brûlée", "a b"}, {"{}", R"({"title":"Dessert"})", ""});
  ASSERT_TRUE(catalogue.ok()) << catalogue.status();
  EXPECT_EQ(catalogue->size(), 3);
  EXPECT_EQ(catalogue->id(1), "B01");
  EXPECT_EQ(catalogue->id(2), "crème brûlée");
  EXPECT_EQ(catalogue->Find("crème brûlée"), 2);
  EXPECT_EQ(catalogue->Find("a b"), 3);
  EXPECT_EQ(catalogue->Find("a"), std::nullopt);
  EXPECT_EQ(catalogue->Find(""), std::nullopt);
  EXPECT_EQ(catalogue->record(2), R"({"title":"Dessert"})");
  EXPECT_EQ(catalogue->Field(2, "title"), "Dessert");
  EXPECT_EQ(catalogue->Field(3, "title"), "");
}

TEST(Catalogue, MayBeEmpty) {
  const auto catalogue = Catalogue::Create(std::vector<std::string>(), std::vector<std::string>());
  ASSERT_TRUE(catalogue.ok()) << catalogue.status();
  EXPECT_EQ(catalogue->size(), 0);
  EXPECT_EQ(catalogue->Find("x"), std::nullopt);
}

TEST(Catalogue, OutlivesTheObjectThatItWasMovedFrom) {
  auto first = Catalogue::Create({"one", "two"}, {"{}", "{}"});
  ASSERT_TRUE(first.ok());
  const Catalogue second = *std::move(first);
  const Catalogue third = second;
  EXPECT_EQ(third.Find("two"), 2);
  EXPECT_EQ(third.id(1), "one");
}

TEST(Catalogue, KeepsTheOwnerOfItsTextsAlive) {
  auto owner = std::make_shared<std::string>("onetwo");
  const std::weak_ptr<std::string> watch = owner;
  const std::vector<int64_t> ids{0, 3, 6};
  const std::vector<int64_t> records{0, 0, 0};
  {
    const absl::string_view text = *owner;
    const auto catalogue = Catalogue::Create(text, ids, "", records, std::move(owner));
    ASSERT_TRUE(catalogue.ok());
    EXPECT_FALSE(watch.expired());
    EXPECT_EQ(catalogue->id(2), "two");
  }
  EXPECT_TRUE(watch.expired());
}

TEST(Catalogue, RefusesSharedAndEmptyIdsAndNamesTheItems) {
  const auto shared = Catalogue::Create({"a", "b", "a"}, {"", "", ""});
  EXPECT_EQ(shared.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(shared.status().message()), HasSubstr("items 1 and 3 share the id 'a'"));
  const auto empty = Catalogue::Create({"a", ""}, {"", ""});
  EXPECT_EQ(empty.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(empty.status().message()), HasSubstr("item 2 has an empty id"));
}

TEST(Catalogue, RefusesOffsetsThatLeaveTheText) {
  const std::vector<int64_t> good{0, 1, 2};
  const std::vector<std::vector<int64_t>> bad = {{},         {0, 2, 1}, {0, 1, 3},
                                                 {-1, 1, 2}, {0, 1},    {0, 1, INT64_MAX}};
  for (const std::vector<int64_t>& offsets : bad) {
    EXPECT_EQ(Catalogue::Create("ab", offsets, "xy", good, nullptr).status().code(),
              absl::StatusCode::kDataLoss);
    EXPECT_EQ(Catalogue::Create("ab", good, "xy", offsets, nullptr).status().code(),
              absl::StatusCode::kDataLoss);
  }
}

TEST(ItemRecord, RendersEveryKindOfValue) {
  const std::string record =
      R"({"title": "Soap \"A\"", "price": 1.50, "n": 12, "minus": -3, "yes": true, "none": null,
    "list": ["a", ["b", 2], [], {"deep": "c"}], "object": {"x": 1, "y": ["z"]}, "empty": [], "title": "later"})";
  EXPECT_EQ(RecordField(record, "title"), "Soap \"A\"");
  EXPECT_EQ(RecordField(record, "price"), "1.50");
  EXPECT_EQ(RecordField(record, "n"), "12");
  EXPECT_EQ(RecordField(record, "minus"), "-3");
  EXPECT_EQ(RecordField(record, "yes"), "true");
  EXPECT_EQ(RecordField(record, "none"), "");
  EXPECT_EQ(RecordField(record, "list"), "a, b, 2, c");
  EXPECT_EQ(RecordField(record, "object"), "1, z");
  EXPECT_EQ(RecordField(record, "empty"), "");
  EXPECT_EQ(RecordField(record, "deep"), "");
  EXPECT_EQ(RecordField(record, "x"), "");
  EXPECT_EQ(RecordField(record, ""), "");
  const std::vector<std::string> names{"n", "absent", "title"};
  EXPECT_THAT(RecordFields(record, names), ElementsAre("12", "", "Soap \"A\""));
}

// Against nlohmann's document: all that random text, nesting and spelling can do to a record.
TEST(ItemRecord, FindsAFieldWhateverStandsAroundIt) {
  Random random(5);
  const std::vector<std::string> texts = {"",           "Soap",         "Soap \"A\"", "back\\slash",
                                          "line\nfeed", "品目, \u00e9", "{\"b\": 1}", "1.50"};
  const auto text = [&] { return texts[static_cast<size_t>(random.Index(8))]; };
  for (int i = 0; i < 2000; ++i) {
    nlohmann::ordered_json record = nlohmann::ordered_json::object();
    for (int64_t field = random.Index(6); field >= 0; --field) {
      const std::string key =
          random.Index(6) == 0 ? text() : std::string(1, "abcd"[random.Index(4)]);
      switch (random.Index(5)) {
        case 0:
          record[key] = random.Index(100) - 50;
          break;
        case 1:
          record[key] = nullptr;
          break;
        case 2:
          record[key] = {text(), text()};
          break;
        default:
          record[key] = text();
      }
    }
    const std::string written =
        record.dump(static_cast<int>(random.Index(4)) - 1, ' ', random.Index(2) == 0);
    for (const std::string name : {"a", "b", "", "{\"b\": 1}"}) {
      std::string expected;
      if (record.contains(name)) {
        const auto& value = record[name];
        if (value.is_array()) {
          expected = absl::StrCat(value[0].get<std::string>(), ", ", value[1].get<std::string>());
        } else if (!value.is_null()) {
          expected = value.is_string() ? value.get<std::string>() : value.dump();
        }
      }
      EXPECT_EQ(RecordField(written, name), expected) << written;
    }
  }
}

TEST(ItemRecord, LeavesWhatIsNotTextToTheParser) {
  EXPECT_EQ(RecordField("{\"a\": \"\xff\"}", "a"), "");
  EXPECT_EQ(RecordField("{\"a\": \"tab\there\"}", "a"), "");
  EXPECT_EQ(RecordField("{\"a\": \"open", "a"), "");
  EXPECT_EQ(RecordField("{\"b\" \"a\": \"x\"}", "a"), "");
  EXPECT_EQ(RecordField("\"a\": \"x\"", "a"), "");
}

TEST(ItemRecord, TreatsWhatIsNoObjectAsEmpty) {
  for (const char* text :
       {"", "[]", "[1, {\"a\": 2}]", "\"a\"", "{", "{\"b\": ", "nonsense", "\xff\xfe"}) {
    EXPECT_EQ(RecordField(text, "a"), "") << text;
  }
}

TEST(ItemRecord, VisitsEveryValueWithItsType) {
  std::vector<std::string> visited;
  const auto visit = [&](const char* record) {
    visited.clear();
    VisitRecord(record, [&](absl::string_view field, const RecordValue& value) {
      const auto* text = std::get_if<absl::string_view>(&value);
      const auto* number = std::get_if<double>(&value);
      visited.push_back(absl::StrCat(field,
                                     text != nullptr     ? " text "
                                     : number != nullptr ? " number "
                                                         : " flag ",
                                     text != nullptr         ? std::string(*text)
                                     : number != nullptr     ? absl::StrCat(*number)
                                     : std::get<bool>(value) ? "yes"
                                                             : "no"));
    });
  };
  visit(
      R"({"a": "x", "b": [1, [2.5, {"deep": false}], null], "c": {"k": "v", "l": -3}, "d": true})");
  EXPECT_THAT(visited, ElementsAre("a text x", "b number 1", "b number 2.5", "b flag no",
                                   "c text v", "c number -3", "d flag yes"));
  visit(R"({"a": "x", "b": )");
  EXPECT_THAT(visited, ElementsAre("a text x"));
  for (const char* text : {"", "[1]", "\"a\"", "3", "nonsense"}) {
    visit(text);
    EXPECT_THAT(visited, ElementsAre()) << text;
  }
}

TEST(ItemRecord, SurvivesDeepNesting) {
  const std::string deep =
      "{\"a\": " + std::string(200000, '[') + "1" + std::string(200000, ']') + "}";
  EXPECT_EQ(RecordField(deep, "a"), "1");
}

}  // namespace
}  // namespace nestrec
