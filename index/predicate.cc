#include "index/predicate.h"

#include <algorithm>
#include <cmath>
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

absl::StatusOr<ItemSet> MatchingSome(const std::vector<Predicate>& children,
                                     const AttributeTable& table) {
  std::vector<ItemSet> sets;
  for (const Predicate& child : children) {
    NESTREC_ASSIGN_OR_RETURN(ItemSet set, Matching(child, table));
    sets.push_back(std::move(set));
  }
  return ItemSet::Union(sets);
}

absl::StatusOr<ItemSet> Evaluate(const Predicate& predicate, const AttributeTable& table) {
  NESTREC_RETURN_IF_ERROR(CheckCondition(predicate, table));
  const ItemSet all = ItemSet::Range(1, table.items() + 1);
  switch (predicate.kind) {
    case Predicate::Kind::kAnyOf:
      return table.AnyOf(*table.Find(predicate.field), predicate.values);
    case Predicate::Kind::kAllOf:
      return table.AllOf(*table.Find(predicate.field), predicate.values);
    case Predicate::Kind::kInRange:
      return table.InRange(*table.Find(predicate.field), predicate.range);
    case Predicate::Kind::kExists:
      return table.Having(*table.Find(predicate.field));
    case Predicate::Kind::kSome:
      return MatchingSome(predicate.children, table);
    case Predicate::Kind::kNone: {
      NESTREC_ASSIGN_OR_RETURN(const ItemSet some, MatchingSome(predicate.children, table));
      return all.Without(some);
    }
    case Predicate::Kind::kEvery: {
      ItemSet every = all;
      for (const Predicate& child : predicate.children) {
        NESTREC_ASSIGN_OR_RETURN(const ItemSet set, Matching(child, table));
        every = every.And(set);
      }
      return every;
    }
  }
  return absl::InternalError("a predicate of an unknown kind");
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

absl::Status CheckCondition(const Predicate& predicate, const AttributeTable& table) {
  if (!IsLeaf(predicate.kind)) {
    return absl::OkStatus();
  }
  const std::optional<AttributeTable::FieldId> field = table.Find(predicate.field);
  if (!field.has_value()) {
    std::vector<std::string> names = table.FieldNames();
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
    if (!table.HasNumbers(*field)) {
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

absl::StatusOr<ItemSet> Matching(const Predicate& predicate, const AttributeTable& table) {
  return Guard("evaluating a filter",
               [&]() -> absl::StatusOr<ItemSet> { return Evaluate(predicate, table); });
}

}  // namespace nestrec
