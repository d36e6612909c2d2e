#include "index/attributes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "index/predicate.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// What a test knows of an item, apart from the table.
struct Item {
  std::vector<std::string> categories;
  std::vector<double> prices;
  std::optional<bool> in_stock;
};

// Items 1.. with none, one or several values in each field.
std::vector<Item> RandomItems(int64_t count, Random& random) {
  std::vector<Item> items(static_cast<size_t>(count) + 1);
  for (size_t i = 1; i < items.size(); ++i) {
    for (int64_t n = random.Index(4); n > 0; --n) {
      // Some categories are large, most are small.
      const double u = random.Uniform();
      items[i].categories.push_back(absl::StrCat("c", static_cast<int>(u * u * u * 300)));
    }
    for (int64_t n = random.Index(3); n > 0; --n) {
      items[i].prices.push_back(std::floor(random.Uniform(-50, 50)) / 4);
    }
    if (random.Index(3) > 0) items[i].in_stock = random.Index(2) == 0;
  }
  return items;
}

AttributeTable TableOf(const std::vector<Item>& items) {
  AttributeTable::Builder builder(static_cast<int64_t>(items.size()) - 1);
  for (size_t i = 1; i < items.size(); ++i) {
    const auto item = static_cast<int32_t>(i);
    for (const std::string& category : items[i].categories) {
      builder.AddText(item, "category", category);
    }
    for (const double price : items[i].prices) builder.AddNumber(item, "price", price);
    if (items[i].in_stock.has_value()) builder.AddFlag(item, "in_stock", *items[i].in_stock);
  }
  return std::move(builder).Build();
}

bool Has(const Item& item, const std::string& field, const AttributeValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) {
    return field == "category" && std::find(item.categories.begin(), item.categories.end(),
                                            *text) != item.categories.end();
  }
  if (const auto* number = std::get_if<double>(&value)) {
    return field == "price" &&
           std::find(item.prices.begin(), item.prices.end(), *number) != item.prices.end();
  }
  return field == "in_stock" && item.in_stock == std::get<bool>(value);
}

// The definition, item by item.
bool Meets(const Item& item, const Predicate& predicate) {
  const auto has = [&](const AttributeValue& value) { return Has(item, predicate.field, value); };
  const auto meets = [&](const Predicate& child) { return Meets(item, child); };
  const NumberRange& range = predicate.range;
  switch (predicate.kind) {
    case Predicate::Kind::kAnyOf:
      return std::any_of(predicate.values.begin(), predicate.values.end(), has);
    case Predicate::Kind::kAllOf:
      return std::all_of(predicate.values.begin(), predicate.values.end(), has);
    case Predicate::Kind::kInRange:
      return std::any_of(item.prices.begin(), item.prices.end(), [&](double price) {
        return (!range.min || price > *range.min || (price == *range.min && !range.exclude_min)) &&
               (!range.max || price < *range.max || (price == *range.max && !range.exclude_max));
      });
    case Predicate::Kind::kExists:
      return predicate.field == "category" ? !item.categories.empty()
             : predicate.field == "price"  ? !item.prices.empty()
                                           : item.in_stock.has_value();
    case Predicate::Kind::kEvery:
      return std::all_of(predicate.children.begin(), predicate.children.end(), meets);
    case Predicate::Kind::kSome:
      return std::any_of(predicate.children.begin(), predicate.children.end(), meets);
    case Predicate::Kind::kNone:
      return std::none_of(predicate.children.begin(), predicate.children.end(), meets);
  }
  return false;
}

Predicate RandomPredicate(int depth, Random& random) {
  const auto child = [&] { return RandomPredicate(depth - 1, random); };
  switch (random.Index(depth > 0 ? 8 : 5)) {
    case 0:
      return Predicate::AnyOf(
          "category", {absl::StrCat("c", random.Index(300)), absl::StrCat("c", random.Index(3))});
    case 1:
      return Predicate::AllOf(
          "category", {absl::StrCat("c", random.Index(2)), absl::StrCat("c", random.Index(9))});
    case 2:
      return Predicate::InRange(
          "price",
          {.min = random.Index(4) > 0 ? std::optional(std::floor(random.Uniform(-60, 60)) / 4)
                                      : std::nullopt,
           .max = random.Index(4) > 0 ? std::optional(std::floor(random.Uniform(-60, 60)) / 4)
                                      : std::nullopt,
           .exclude_min = random.Index(2) == 0,
           .exclude_max = random.Index(2) == 0});
    case 3:
      return Predicate::AnyOf("in_stock", {random.Index(2) == 0});
    case 4:
      return Predicate::Exists(random.Index(2) == 0 ? "price" : "in_stock");
    case 5:
      return Predicate::Every({child(), child()});
    case 6:
      return Predicate::Some({child(), child(), child()});
    default:
      return Predicate::None({child()});
  }
}

TEST(Predicate, MatchesWhatItsDefinitionSays) {
  Random random(1);
  for (const int64_t count : {1, 50, 1000, 40'000}) {
    const std::vector<Item> items = RandomItems(count, random);
    const AttributeTable table = TableOf(items);
    for (int round = 0; round < (count > 10'000 ? 60 : 300); ++round) {
      const Predicate predicate = RandomPredicate(3, random);
      const auto set = Matching(predicate, table);
      if (!set.ok()) {  // a table of one item lacks fields
        ASSERT_LT(count, 50) << set.status();
        continue;
      }
      std::vector<int32_t> expected;
      for (int32_t item = 1; item <= count; ++item) {
        if (Meets(items[static_cast<size_t>(item)], predicate)) expected.push_back(item);
      }
      ASSERT_EQ(set->Items(), expected) << "round " << round << " of " << count;
    }
  }
}

TEST(Predicate, OfNoChildrenIsMetOrNotAsLogicHasIt) {
  Random random(2);
  const AttributeTable table = TableOf(RandomItems(10, random));
  EXPECT_EQ(Matching(Predicate::Every({}), table)->size(), 10);
  EXPECT_EQ(Matching(Predicate::None({}), table)->size(), 10);
  EXPECT_EQ(Matching(Predicate::Some({}), table)->size(), 0);
  EXPECT_EQ(Matching(Predicate(), table)->size(), 10);
}

TEST(Predicate, RefusesFieldsThatNoItemHas) {
  Random random(3);
  const AttributeTable table = TableOf(RandomItems(100, random));
  const auto status = [&](const Predicate& p) { return Matching(p, table).status(); };
  EXPECT_EQ(status(Predicate::Exists("colour")).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status(Predicate::Exists("colour")).message(),
              HasSubstr("\"colour\"; the fields are category, in_stock, price"));
  EXPECT_THAT(status(Predicate::None({Predicate::InRange("category", {.max = 3})})).message(),
              HasSubstr("no item has a number in the field \"category\""));
  EXPECT_THAT(status(Predicate::InRange("price", {.max = std::nan("")})).message(),
              HasSubstr("not a number"));
  EXPECT_THAT(status(Predicate::AnyOf("price", {std::nan("")})).message(),
              HasSubstr("not a number"));
}

TEST(AttributeTable, TellsTypesApart) {
  AttributeTable::Builder builder(4);
  builder.AddText(1, "x", "1");
  builder.AddNumber(2, "x", 1);
  builder.AddFlag(3, "x", true);
  builder.AddText(4, "x", "true");
  const AttributeTable table = std::move(builder).Build();
  const auto items = [&](const AttributeValue& value) {
    return table.AnyOf(*table.Find("x"), {&value, 1}).Items();
  };
  EXPECT_THAT(items("1"), ElementsAre(1));
  EXPECT_THAT(items(1.0), ElementsAre(2));
  EXPECT_THAT(items(true), ElementsAre(3));
  EXPECT_THAT(items("true"), ElementsAre(4));
  EXPECT_THAT(items(false), IsEmpty());
}

TEST(AttributeTable, TakesOddNumbersAndTexts) {
  AttributeTable::Builder builder(3);
  builder.AddNumber(1, "n", -0.0);
  builder.AddNumber(2, "n", std::numeric_limits<double>::infinity());  // left out
  builder.AddNumber(3, "n", 1e308);
  builder.AddText(1, "t", "");
  builder.AddText(2, "t", std::string("a\0b", 3));
  builder.AddText(3, "t", std::string(AttributeTable::kMaxTextBytes + 1, 'x'));
  const AttributeTable table = std::move(builder).Build();
  const auto items = [&](const char* field, const AttributeValue& value) {
    return table.AnyOf(*table.Find(field), {&value, 1}).Items();
  };
  EXPECT_THAT(items("n", 0.0), ElementsAre(1));
  EXPECT_THAT(table.Having(*table.Find("n")).Items(), ElementsAre(1, 3));
  EXPECT_THAT(table.InRange(*table.Find("n"), {.min = 0}).Items(), ElementsAre(1, 3));
  EXPECT_THAT(table.InRange(*table.Find("n"), {.min = 5, .max = 4}).Items(), IsEmpty());
  EXPECT_THAT(items("t", ""), ElementsAre(1));
  EXPECT_THAT(items("t", std::string("a\0b", 3)), ElementsAre(2));
  EXPECT_THAT(items("t", std::string(AttributeTable::kMaxTextBytes + 1, 'x')), IsEmpty());
  EXPECT_THAT(table.Having(*table.Find("t")).Items(), ElementsAre(1, 2, 3));  // it has one
}

TEST(AttributeTable, KnowsTheValuesOfAnItem) {
  AttributeTable::Builder builder(3);
  builder.AddText(3, "c", "b");
  builder.AddText(1, "c", "a");
  builder.AddText(1, "c", "b");
  builder.AddText(1, "c", "a");
  const AttributeTable table = std::move(builder).Build();
  const auto field = *table.Find("c");
  EXPECT_THAT(table.ValuesOf(field, 1), testing::SizeIs(2));
  EXPECT_THAT(table.ValuesOf(field, 2), IsEmpty());
  ASSERT_THAT(table.ValuesOf(field, 3), testing::SizeIs(1));
  EXPECT_THAT(table.ItemsOf(field, table.ValuesOf(field, 3)[0]).Items(), ElementsAre(1, 3));
}

TEST(AttributeTable, BoundsTheNumberOfFields) {
  AttributeTable::Builder builder(1);
  for (size_t i = 0; i < AttributeTable::kMaxFields + 7; ++i) {
    builder.AddText(1, absl::StrCat("field ", i), "x");
  }
  EXPECT_EQ(builder.dropped_fields(), 7u);
  EXPECT_EQ(std::move(builder).Build().FieldNames().size(), AttributeTable::kMaxFields);
}

}  // namespace
}  // namespace nestrec
