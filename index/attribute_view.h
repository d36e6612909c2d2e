// An attribute table together with items that came, changed or went after it was built: what
// filters and caps look at. The few that changed are looked at one by one, the others through the
// table.
//
//   ItemAttributes attributes;
//   attributes.AddText("brand", "Felane");
//   const AttributeOverlay overlay(/*items=*/501, {{.item = 501, .attributes = &attributes}});
//   const AttributeView view(table, &overlay);
//
// Ownership: views and overlays look at what others own.
// Thread safety: immutable once filled.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "index/attributes.h"
#include "index/item_set.h"

namespace nestrec {

// The values of one item, by field: what AttributeTable::Builder would keep of them.
class ItemAttributes {
 public:
  void AddText(absl::string_view field, absl::string_view text);
  void AddNumber(absl::string_view field, double number);  // finite, or it is left out
  void AddFlag(absl::string_view field, bool flag);

  struct Field {
    std::string name;
    std::vector<AttributeValue> values;  // those that can be asked for; may repeat
    bool has_numbers = false;
  };
  // At most AttributeTable::kMaxFields, in the order in which they came.
  std::span<const Field> fields() const { return fields_; }
  const Field* Find(absl::string_view field) const;
  int64_t bytes() const;

 private:
  Field* FieldOf(absl::string_view field);

  std::vector<Field> fields_;
};

class AttributeOverlay {
 public:
  struct Changed {
    int32_t item = 0;
    const ItemAttributes* attributes = nullptr;  // null: there is no such item any more
  };

  AttributeOverlay() = default;
  // Items are numbered 1..items. `changed`: ascending, each once; of items beyond the table's all
  // that there are.
  AttributeOverlay(int64_t items, std::vector<Changed> changed);

  int64_t items() const { return items_; }
  std::span<const Changed> changed() const { return changed_; }
  const ItemSet& changed_set() const { return changed_set_; }
  // Whether the item is one of the changed ones, and what it has.
  std::optional<const ItemAttributes*> Find(int32_t item) const;
  bool HasField(absl::string_view field) const { return has_numbers_.contains(field); }
  bool HasNumbers(absl::string_view field) const;
  std::vector<std::string> FieldNames() const;  // in no order

 private:
  int64_t items_ = 0;
  std::vector<Changed> changed_;
  ItemSet changed_set_;
  absl::flat_hash_map<std::string, bool> has_numbers_;  // by field
};

class AttributeView {
 public:
  // Implicit: a table is a view of itself.
  AttributeView(const AttributeTable& table)
      : table_(&table) {}  // NOLINT(google-explicit-constructor)
  // `overlay` may be null.
  AttributeView(const AttributeTable& table, const AttributeOverlay* overlay)
      : table_(&table), overlay_(overlay) {}

  const AttributeTable& table() const { return *table_; }
  const AttributeOverlay* overlay() const { return overlay_; }
  int64_t items() const { return overlay_ != nullptr ? overlay_->items() : table_->items(); }
  bool HasField(absl::string_view field) const;
  bool HasNumbers(absl::string_view field) const;
  std::vector<std::string> FieldNames() const;  // sorted

 private:
  const AttributeTable* table_;
  const AttributeOverlay* overlay_ = nullptr;
};

}  // namespace nestrec
