// What is known of items beside their vectors, by field, kept so that a predicate over it becomes a
// set of items quickly: an inverted index of every value, and sorted columns of numbers.
//
//   AttributeTable::Builder builder(items);
//   builder.AddText(7, "brand", "Felane");
//   builder.AddNumber(7, "price", 18.99);
//   const AttributeTable table = std::move(builder).Build();
//   ItemSet cheap = table.InRange(*table.Find("price"), {.max = 20});
//
// An item may have any number of values in a field, of any type. Values are compared whole and as
// they are: texts byte by byte, numbers as doubles.
//
// Sizes: with N items, V values in all and P (item, value) pairs, about 12 P + 40 V bytes and the
// texts once, and per field of numbers about 20 bytes a number.
//
// Thread safety: a table is immutable; a builder is for one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "index/item_set.h"

namespace nestrec {

using AttributeValue = std::variant<std::string, double, bool>;

struct NumberRange {
  std::optional<double> min;  // none: no limit
  std::optional<double> max;
  bool exclude_min = false;  // the limit itself does not count
  bool exclude_max = false;
};

class AttributeTable {
 public:
  // Longer texts (descriptions) have a field, but cannot be asked for.
  static constexpr size_t kMaxTextBytes = 128;
  static constexpr size_t kMaxFields = 256;

  class Builder;
  // What a field of the table is called inside; stays valid as long as the table.
  using FieldId = uint32_t;
  // A value of a field, such as one brand.
  using ValueId = uint32_t;

  AttributeTable() = default;  // of no items

  int64_t items() const { return items_; }
  int64_t bytes() const;
  // Sorted.
  std::vector<std::string> FieldNames() const;
  std::optional<FieldId> Find(absl::string_view field) const;
  bool HasNumbers(FieldId field) const { return !fields_[field].numbers.empty(); }

  // Items that have a value, whatever it is.
  const ItemSet& Having(FieldId field) const { return fields_[field].having; }
  // Items that have at least one of the values. Values that no item has match nothing.
  ItemSet AnyOf(FieldId field, std::span<const AttributeValue> values) const;
  // Items that have all of the values; every item where there are none.
  ItemSet AllOf(FieldId field, std::span<const AttributeValue> values) const;
  // Items with a number in the range. Limits that cross match nothing.
  ItemSet InRange(FieldId field, const NumberRange& range) const;

  // Nothing where no item has the value.
  std::optional<ValueId> FindValue(FieldId field, const AttributeValue& value) const;
  // The values of an item, ascending, each once. REQUIRES: 1 <= item <= items().
  std::span<const ValueId> ValuesOf(FieldId field, int32_t item) const;
  // The items of a value.
  ItemSet ItemsOf(FieldId field, ValueId value) const;

  // A text that is the same for equal values and no others.
  static std::string Key(const AttributeValue& value);

 private:
  // Sets of a column of numbers' parts: a binary tree over kLeaves equal stretches of the sorted
  // column, so that any range is a union of few sets and of the numbers at its two ends.
  static constexpr size_t kLeaves = 64;
  // Columns and values with fewer items than this are listed, not made into sets beforehand.
  static constexpr size_t kSetFrom = 1024;

  struct Field {
    std::string name;
    absl::flat_hash_map<std::string, ValueId> values;  // by Key()
    // Items of value v: item_lists[list_begins[v] .. list_begins[v + 1]), ascending; of the values
    // with at least kSetFrom a set, and no list.
    std::vector<uint32_t> list_begins;
    std::vector<int32_t> item_lists;
    absl::flat_hash_map<ValueId, ItemSet> item_sets;
    // Values of item i: value_lists[value_begins[i] .. value_begins[i + 1]).
    std::vector<uint32_t> value_begins;
    std::vector<ValueId> value_lists;
    std::vector<std::pair<double, int32_t>> numbers;  // (number, item), sorted
    std::vector<ItemSet> number_tree;  // node n covers its children 2n and 2n + 1; [1, 2 kLeaves)
    ItemSet having;
  };

  ItemSet OfPositions(const Field& field, size_t begin, size_t end) const;

  int64_t items_ = 0;
  std::vector<Field> fields_;
  absl::flat_hash_map<std::string, FieldId> ids_;
};

class AttributeTable::Builder {
 public:
  explicit Builder(int64_t items) : items_(items) {}

  // REQUIRES of all: 1 <= item <= items. The same value twice is one.
  void AddText(int32_t item, absl::string_view field, absl::string_view text);
  void AddNumber(int32_t item, absl::string_view field,
                 double number);  // finite, or it is left out
  void AddFlag(int32_t item, absl::string_view field, bool flag);

  // Fields beyond the first kMaxFields, which are left out.
  size_t dropped_fields() const { return dropped_.size(); }
  AttributeTable Build() &&;

 private:
  struct Column {
    std::string name;
    absl::flat_hash_map<std::string, ValueId> values;
    std::vector<std::pair<ValueId, int32_t>> pairs;  // (value, item)
    std::vector<std::pair<double, int32_t>> numbers;
    std::vector<int32_t> having;
  };

  Column* ColumnOf(absl::string_view field);
  static void AddHaving(Column& column, int32_t item);
  static void AddValue(Column& column, int32_t item, const AttributeValue& value);
  static Field Finish(Column column, int64_t items);

  int64_t items_;
  std::vector<Column> columns_;
  absl::flat_hash_map<std::string, size_t> ids_;
  absl::flat_hash_map<std::string, bool> dropped_;
};

}  // namespace nestrec
