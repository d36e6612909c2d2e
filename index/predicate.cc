#include "index/predicate.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/guard.h"
#include "base/printable.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

constexpr size_t kNamesListed = 20;

Predicate Leaf(Predicate::Kind kind, std::string field) {
  Predicate predicate;
  predicate.kind = kind;
  predicate.field = std::move(field);
  return predicate;
}

Predicate Branch(Predicate::Kind kind, std::vector<Predicate> children) {
  Predicate predicate;
  predicate.kind = kind;
  predicate.children = std::move(children);
  return predicate;
}

bool IsLeaf(Predicate::Kind kind) {
  return kind == Predicate::Kind::kAnyOf || kind == Predicate::Kind::kAllOf ||
         kind == Predicate::Kind::kInRange || kind == Predicate::Kind::kExists;
}

bool IsNan(const AttributeValue& value) {
  const auto* number = std::get_if<double>(&value);
  return number != nullptr && std::isnan(*number);
}

absl::Status CheckAll(const Predicate& predicate, const AttributeView& view) {
  NESTREC_RETURN_IF_ERROR(CheckCondition(predicate, view));
  for (const Predicate& child : predicate.children) {
    NESTREC_RETURN_IF_ERROR(CheckAll(child, view));
  }
  return absl::OkStatus();
}

ItemSet EvaluateLeaf(const Predicate& predicate, const AttributeTable& table,
                     AttributeTable::FieldId field) {
  switch (predicate.kind) {
    case Predicate::Kind::kAnyOf:
      return table.AnyOf(field, predicate.values);
    case Predicate::Kind::kAllOf:
      return table.AllOf(field, predicate.values);
    case Predicate::Kind::kInRange:
      return table.InRange(field, predicate.range);
    default:
      return table.Having(field);
  }
}

// Of the table's items.
ItemSet Evaluate(const Predicate& predicate, const AttributeTable& table) {
  const ItemSet all = ItemSet::Range(1, table.items() + 1);
  if (IsLeaf(predicate.kind)) {
    const auto field = table.Find(predicate.field);
    if (field.has_value()) return EvaluateLeaf(predicate, table, *field);
    // A field that only other items have.
    return predicate.kind == Predicate::Kind::kAllOf && predicate.values.empty() ? all : ItemSet();
  }
  std::vector<ItemSet> sets;
  for (const Predicate& child : predicate.children) sets.push_back(Evaluate(child, table));
  if (predicate.kind == Predicate::Kind::kSome) return ItemSet::Union(sets);
  if (predicate.kind == Predicate::Kind::kNone) return all.Without(ItemSet::Union(sets));
  return std::accumulate(sets.begin(), sets.end(), all,
                         [](const ItemSet& every, const ItemSet& set) { return every.And(set); });
}

bool IsWithin(double number, const NumberRange& range) {
  const bool above =
      !range.min.has_value() || (range.exclude_min ? number > *range.min : number >= *range.min);
  const bool below =
      !range.max.has_value() || (range.exclude_max ? number < *range.max : number <= *range.max);
  return above && below;
}

}  // namespace

Predicate Predicate::AnyOf(std::string field, std::vector<AttributeValue> values) {
  Predicate predicate = Leaf(Kind::kAnyOf, std::move(field));
  predicate.values = std::move(values);
  return predicate;
}

Predicate Predicate::AllOf(std::string field, std::vector<AttributeValue> values) {
  Predicate predicate = Leaf(Kind::kAllOf, std::move(field));
  predicate.values = std::move(values);
  return predicate;
}

Predicate Predicate::InRange(std::string field, NumberRange range) {
  Predicate predicate = Leaf(Kind::kInRange, std::move(field));
  predicate.range = range;
  return predicate;
}

Predicate Predicate::Exists(std::string field) { return Leaf(Kind::kExists, std::move(field)); }

Predicate Predicate::Every(std::vector<Predicate> children) {
  return Branch(Kind::kEvery, std::move(children));
}

Predicate Predicate::Some(std::vector<Predicate> children) {
  return Branch(Kind::kSome, std::move(children));
}

Predicate Predicate::None(std::vector<Predicate> children) {
  return Branch(Kind::kNone, std::move(children));
}

absl::Status CheckCondition(const Predicate& predicate, const AttributeView& view) {
  if (!IsLeaf(predicate.kind)) {
    return absl::OkStatus();
  }
  if (!view.HasField(predicate.field)) {
    std::vector<std::string> names = view.FieldNames();
    const bool cut = names.size() > kNamesListed;
    names.resize(std::min(names.size(), kNamesListed));
    return absl::InvalidArgumentError(
        absl::StrCat("no item has a field \"", Printable(predicate.field), "\"; the fields are ",
                     Printable(absl::StrJoin(names, ", ")), cut ? ", ..." : ""));
  }
  if (predicate.kind == Predicate::Kind::kInRange) {
    const NumberRange& range = predicate.range;
    if ((range.min.has_value() && std::isnan(*range.min)) ||
        (range.max.has_value() && std::isnan(*range.max))) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a limit of the range of \"", Printable(predicate.field), "\" is not a number"));
    }
    if (!view.HasNumbers(predicate.field)) {
      return absl::InvalidArgumentError(absl::StrCat("no item has a number in the field \"",
                                                     Printable(predicate.field),
                                                     "\"; ask for its values instead"));
    }
  }
  if (std::any_of(predicate.values.begin(), predicate.values.end(), IsNan)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a value for \"", Printable(predicate.field), "\" is not a number"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ItemSet> Matching(const Predicate& predicate, const AttributeView& view) {
  return Guard("evaluating a filter", [&]() -> absl::StatusOr<ItemSet> {
    NESTREC_RETURN_IF_ERROR(CheckAll(predicate, view));
    ItemSet matching = Evaluate(predicate, view.table());
    if (view.overlay() == nullptr) return matching;
    std::vector<int32_t> changed;
    for (const AttributeOverlay::Changed& item : view.overlay()->changed()) {
      if (item.attributes != nullptr && Meets(*item.attributes, predicate)) {
        changed.push_back(item.item);
      }
    }
    return matching.Without(view.overlay()->changed_set()).Or(ItemSet::Of(changed));
  });
}

bool Meets(const ItemAttributes& item, const Predicate& predicate) {
  const ItemAttributes::Field* field =
      IsLeaf(predicate.kind) ? item.Find(predicate.field) : nullptr;
  const auto has = [&](const AttributeValue& value) {
    return field != nullptr &&
           std::find(field->values.begin(), field->values.end(), value) != field->values.end();
  };
  const auto meets = [&](const Predicate& child) { return Meets(item, child); };
  switch (predicate.kind) {
    case Predicate::Kind::kAnyOf:
      return std::any_of(predicate.values.begin(), predicate.values.end(), has);
    case Predicate::Kind::kAllOf:
      return std::all_of(predicate.values.begin(), predicate.values.end(), has);
    case Predicate::Kind::kInRange:
      return field != nullptr && std::any_of(field->values.begin(), field->values.end(),
                                             [&](const AttributeValue& value) {
                                               const auto* number = std::get_if<double>(&value);
                                               return number != nullptr &&
                                                      IsWithin(*number, predicate.range);
                                             });
    case Predicate::Kind::kExists:
      return field != nullptr;
    case Predicate::Kind::kSome:
      return std::any_of(predicate.children.begin(), predicate.children.end(), meets);
    case Predicate::Kind::kNone:
      return std::none_of(predicate.children.begin(), predicate.children.end(), meets);
    case Predicate::Kind::kEvery:
      break;
  }
  return std::all_of(predicate.children.begin(), predicate.children.end(), meets);
}

}  // namespace nestrec
