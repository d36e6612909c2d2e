#include "index/attribute_view.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace nestrec {

ItemAttributes::Field* ItemAttributes::FieldOf(absl::string_view field) {
  for (Field& known : fields_) {
    if (known.name == field) return &known;
  }
  if (fields_.size() == AttributeTable::kMaxFields) return nullptr;
  fields_.push_back({.name = std::string(field), .values = {}});
  return &fields_.back();
}

const ItemAttributes::Field* ItemAttributes::Find(absl::string_view field) const {
  for (const Field& known : fields_) {
    if (known.name == field) return &known;
  }
  return nullptr;
}

void ItemAttributes::AddText(absl::string_view field, absl::string_view text) {
  Field* known = FieldOf(field);
  if (known != nullptr && text.size() <= AttributeTable::kMaxTextBytes) {
    known->values.emplace_back(std::string(text));
  }
}

void ItemAttributes::AddNumber(absl::string_view field, double number) {
  Field* known = std::isfinite(number) ? FieldOf(field) : nullptr;
  if (known == nullptr) return;
  known->values.emplace_back(number);
  known->has_numbers = true;
}

void ItemAttributes::AddFlag(absl::string_view field, bool flag) {
  if (Field* known = FieldOf(field)) known->values.emplace_back(flag);
}

int64_t ItemAttributes::bytes() const {
  size_t bytes = sizeof(*this) + fields_.capacity() * sizeof(Field);
  for (const Field& field : fields_) {
    bytes += field.name.capacity() + field.values.capacity() * sizeof(AttributeValue);
    for (const AttributeValue& value : field.values) {
      if (const auto* text = std::get_if<std::string>(&value)) bytes += text->capacity();
    }
  }
  return static_cast<int64_t>(bytes);
}

AttributeOverlay::AttributeOverlay(int64_t items, std::vector<Changed> changed)
    : items_(items), changed_(std::move(changed)) {
  std::vector<int32_t> numbers;
  for (const Changed& item : changed_) {
    numbers.push_back(item.item);
    if (item.attributes == nullptr) continue;
    for (const ItemAttributes::Field& field : item.attributes->fields()) {
      bool& has_numbers = has_numbers_[field.name];
      has_numbers = has_numbers || field.has_numbers;
    }
  }
  changed_set_ = ItemSet::Of(numbers);
}

std::optional<const ItemAttributes*> AttributeOverlay::Find(int32_t item) const {
  const auto found = std::lower_bound(
      changed_.begin(), changed_.end(), item,
      [](const Changed& changed, int32_t number) { return changed.item < number; });
  if (found == changed_.end() || found->item != item) return std::nullopt;
  return found->attributes;
}

bool AttributeOverlay::HasNumbers(absl::string_view field) const {
  const auto found = has_numbers_.find(field);
  return found != has_numbers_.end() && found->second;
}

std::vector<std::string> AttributeOverlay::FieldNames() const {
  std::vector<std::string> names;
  for (const auto& [name, has_numbers] : has_numbers_) names.push_back(name);
  return names;
}

bool AttributeView::HasField(absl::string_view field) const {
  return table_->Find(field).has_value() || (overlay_ != nullptr && overlay_->HasField(field));
}

bool AttributeView::HasNumbers(absl::string_view field) const {
  const std::optional<AttributeTable::FieldId> id = table_->Find(field);
  return (id.has_value() && table_->HasNumbers(*id)) ||
         (overlay_ != nullptr && overlay_->HasNumbers(field));
}

std::vector<std::string> AttributeView::FieldNames() const {
  std::vector<std::string> names = table_->FieldNames();
  if (overlay_ == nullptr) return names;
  for (std::string& name : overlay_->FieldNames()) names.push_back(std::move(name));
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

}  // namespace nestrec
