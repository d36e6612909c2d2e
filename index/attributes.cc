#include "index/attributes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"

namespace nestrec {
namespace {

template <typename T>
int64_t BytesOf(const std::vector<T>& values) {
  return static_cast<int64_t>(values.capacity() * sizeof(T));
}

template <typename T>
void SortUnique(std::vector<T>& values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

}  // namespace

std::string AttributeTable::Key(const AttributeValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) {
    return absl::StrCat("t", *text);
  }
  if (const auto* number = std::get_if<double>(&value)) {
    const double plain = *number + 0.0;  // -0 is 0
    std::string key(1 + sizeof(plain), 'n');
    std::memcpy(key.data() + 1, &plain, sizeof(plain));
    return key;
  }
  return std::get<bool>(value) ? "b1" : "b0";
}

int64_t AttributeTable::bytes() const {
  int64_t bytes = 0;
  for (const Field& field : fields_) {
    bytes += BytesOf(field.list_begins) + BytesOf(field.item_lists) + BytesOf(field.value_begins) +
             BytesOf(field.value_lists) + BytesOf(field.numbers) + field.having.bytes();
    for (const auto& [key, value] : field.values) {
      bytes += static_cast<int64_t>(sizeof(key) + sizeof(value) + key.capacity() + 1);
    }
    for (const auto& [value, set] : field.item_sets) {
      bytes += static_cast<int64_t>(sizeof(value) + sizeof(set)) + set.bytes();
    }
    for (const ItemSet& set : field.number_tree) {
      bytes += static_cast<int64_t>(sizeof(set)) + set.bytes();
    }
  }
  return bytes;
}

std::vector<std::string> AttributeTable::FieldNames() const {
  std::vector<std::string> names;
  for (const Field& field : fields_) {
    names.push_back(field.name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<AttributeTable::FieldId> AttributeTable::Find(absl::string_view field) const {
  const auto found = ids_.find(field);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

ItemSet AttributeTable::ItemsOf(FieldId id, ValueId value) const {
  const Field& field = fields_[id];
  const auto set = field.item_sets.find(value);
  if (set != field.item_sets.end()) {
    return set->second;
  }
  const size_t begin = field.list_begins[value];
  return ItemSet::Of(
      std::span(field.item_lists).subspan(begin, field.list_begins[value + 1] - begin));
}

std::optional<AttributeTable::ValueId> AttributeTable::FindValue(
    FieldId field, const AttributeValue& value) const {
  const auto& values = fields_[field].values;
  const auto found = values.find(Key(value));
  return found == values.end() ? std::nullopt : std::optional(found->second);
}

ItemSet AttributeTable::AnyOf(FieldId id, std::span<const AttributeValue> values) const {
  const Field& field = fields_[id];
  std::vector<ItemSet> sets;
  std::vector<int32_t> listed;
  for (const AttributeValue& value : values) {
    const auto found = field.values.find(Key(value));
    if (found == field.values.end()) {
      continue;
    }
    const auto set = field.item_sets.find(found->second);
    if (set != field.item_sets.end()) {
      sets.push_back(set->second);
    } else {
      listed.insert(listed.end(), field.item_lists.begin() + field.list_begins[found->second],
                    field.item_lists.begin() + field.list_begins[found->second + 1]);
    }
  }
  sets.push_back(ItemSet::Of(listed));
  return ItemSet::Union(sets);
}

ItemSet AttributeTable::AllOf(FieldId id, std::span<const AttributeValue> values) const {
  ItemSet all = ItemSet::Range(1, items_ + 1);
  for (const AttributeValue& value : values) {
    all = all.And(AnyOf(id, {&value, 1}));
  }
  return all;
}

ItemSet AttributeTable::InRange(FieldId id, const NumberRange& range) const {
  const Field& field = fields_[id];
  constexpr int32_t kBelowItems = 0;
  constexpr int32_t kAboveItems = std::numeric_limits<int32_t>::max();
  size_t begin = 0;
  size_t end = field.numbers.size();
  if (range.min.has_value()) {
    begin = static_cast<size_t>(
        std::lower_bound(field.numbers.begin(), field.numbers.end(),
                         std::pair(*range.min, range.exclude_min ? kAboveItems : kBelowItems)) -
        field.numbers.begin());
  }
  if (range.max.has_value()) {
    end = static_cast<size_t>(
        std::lower_bound(field.numbers.begin(), field.numbers.end(),
                         std::pair(*range.max, range.exclude_max ? kBelowItems : kAboveItems)) -
        field.numbers.begin());
  }
  return begin < end ? OfPositions(field, begin, end) : ItemSet();
}

// The items of numbers [begin, end): the tree's nodes for whole leaves, the rest one by one.
ItemSet AttributeTable::OfPositions(const Field& field, size_t begin, size_t end) const {
  const size_t count = field.numbers.size();
  const auto leaf_begin = [&](size_t leaf) { return leaf * count / kLeaves; };
  std::vector<int32_t> listed;
  const auto list = [&](size_t from, size_t to) {
    for (size_t i = from; i < to; ++i) {
      listed.push_back(field.numbers[i].second);
    }
  };
  std::vector<ItemSet> sets;
  size_t first = 0;
  size_t last = 0;  // leaves [first, last) are covered whole
  if (!field.number_tree.empty()) {
    while (first < kLeaves && leaf_begin(first) < begin) ++first;
    last = kLeaves;
    while (last > 0 && leaf_begin(last) > end) --last;
  }
  if (first >= last) {
    list(begin, end);
    return ItemSet::Of(listed);
  }
  list(begin, leaf_begin(first));
  list(leaf_begin(last), end);
  for (size_t low = first + kLeaves, high = last + kLeaves; low < high; low /= 2, high /= 2) {
    if (low % 2 == 1) sets.push_back(field.number_tree[low++]);
    if (high % 2 == 1) sets.push_back(field.number_tree[--high]);
  }
  sets.push_back(ItemSet::Of(listed));
  return ItemSet::Union(sets);
}

std::span<const AttributeTable::ValueId> AttributeTable::ValuesOf(FieldId id, int32_t item) const {
  const Field& field = fields_[id];
  const size_t begin = field.value_begins[static_cast<size_t>(item)];
  return std::span(field.value_lists)
      .subspan(begin, field.value_begins[static_cast<size_t>(item) + 1] - begin);
}

AttributeTable::Builder::Column* AttributeTable::Builder::ColumnOf(absl::string_view field) {
  const auto found = ids_.find(field);
  if (found != ids_.end()) {
    return &columns_[found->second];
  }
  if (columns_.size() == kMaxFields) {
    if (dropped_.size() < kMaxFields) {  // enough to say that there are many
      dropped_.try_emplace(field, true);
    }
    return nullptr;
  }
  ids_.emplace(field, columns_.size());
  columns_.emplace_back().name = std::string(field);
  return &columns_.back();
}

void AttributeTable::Builder::AddValue(Column& column, int32_t item, const AttributeValue& value) {
  const auto next = static_cast<ValueId>(column.values.size());
  const ValueId id = column.values.try_emplace(Key(value), next).first->second;
  column.pairs.emplace_back(id, item);
}

void AttributeTable::Builder::AddHaving(Column& column, int32_t item) {
  if (column.having.empty() || column.having.back() != item) {
    column.having.push_back(item);
  }
}

void AttributeTable::Builder::AddText(int32_t item, absl::string_view field,
                                      absl::string_view text) {
  Column* column = ColumnOf(field);
  if (column == nullptr) {
    return;
  }
  AddHaving(*column, item);
  if (text.size() <= kMaxTextBytes) {
    AddValue(*column, item, std::string(text));
  }
}

void AttributeTable::Builder::AddNumber(int32_t item, absl::string_view field, double number) {
  Column* column = std::isfinite(number) ? ColumnOf(field) : nullptr;
  if (column == nullptr) {
    return;
  }
  AddHaving(*column, item);
  AddValue(*column, item, number);
  column->numbers.emplace_back(number, item);
}

void AttributeTable::Builder::AddFlag(int32_t item, absl::string_view field, bool flag) {
  if (Column* column = ColumnOf(field)) {
    AddHaving(*column, item);
    AddValue(*column, item, flag);
  }
}

AttributeTable::Field AttributeTable::Builder::Finish(Column column, int64_t items) {
  Field field;
  field.name = std::move(column.name);
  field.values = std::move(column.values);
  field.having = ItemSet::Of(column.having);

  SortUnique(column.pairs);
  field.value_begins.assign(static_cast<size_t>(items) + 2, 0);
  for (const auto& [value, item] : column.pairs) {
    ++field.value_begins[static_cast<size_t>(item) + 1];
  }
  for (size_t i = 1; i < field.value_begins.size(); ++i) {
    field.value_begins[i] += field.value_begins[i - 1];
  }
  field.value_lists.resize(column.pairs.size());
  std::vector<uint32_t> next(field.value_begins.begin(), field.value_begins.end());
  for (const auto& [value, item] : column.pairs) {
    field.value_lists[next[static_cast<size_t>(item)]++] = value;
  }

  std::vector<int32_t> of_value;
  size_t pair = 0;
  for (ValueId value = 0; value < field.values.size(); ++value) {
    field.list_begins.push_back(static_cast<uint32_t>(field.item_lists.size()));
    of_value.clear();
    for (; pair < column.pairs.size() && column.pairs[pair].first == value; ++pair) {
      of_value.push_back(column.pairs[pair].second);
    }
    if (of_value.size() >= kSetFrom) {
      field.item_sets.emplace(value, ItemSet::Of(of_value));
    } else {
      field.item_lists.insert(field.item_lists.end(), of_value.begin(), of_value.end());
    }
  }
  field.list_begins.push_back(static_cast<uint32_t>(field.item_lists.size()));
  field.item_lists.shrink_to_fit();

  SortUnique(column.numbers);
  column.numbers.shrink_to_fit();
  field.numbers = std::move(column.numbers);
  if (field.numbers.size() >= kSetFrom) {
    const size_t count = field.numbers.size();
    field.number_tree.resize(2 * kLeaves);
    for (size_t leaf = 0; leaf < kLeaves; ++leaf) {
      std::vector<int32_t> listed;
      for (size_t i = leaf * count / kLeaves; i < (leaf + 1) * count / kLeaves; ++i) {
        listed.push_back(field.numbers[i].second);
      }
      std::sort(listed.begin(), listed.end());
      field.number_tree[kLeaves + leaf] = ItemSet::Of(listed);
    }
    for (size_t node = kLeaves - 1; node > 0; --node) {
      field.number_tree[node] = field.number_tree[2 * node].Or(field.number_tree[2 * node + 1]);
    }
  }
  return field;
}

AttributeTable AttributeTable::Builder::Build() && {
  AttributeTable table;
  table.items_ = items_;
  for (Column& column : columns_) {
    table.ids_.emplace(column.name, static_cast<FieldId>(table.fields_.size()));
    table.fields_.push_back(Finish(std::move(column), items_));
    column = Column();
  }
  return table;
}

}  // namespace nestrec
