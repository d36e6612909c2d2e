// Conditions on the attributes of items, and the sets of items that meet them.
//
//   // brand is Felane or Orsaro, and the price is at most 20
//   Predicate predicate = Predicate::Every({
//       Predicate::AnyOf("brand", {"Felane", "Orsaro"}), Predicate::InRange("price", {.max =
//       20})});
//   NESTREC_ASSIGN_OR_RETURN(ItemSet items, Matching(predicate, table));
//
// An item without a field meets no condition on it, and so meets None of one.
//
// Thread safety: pure functions on values.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "index/attribute_view.h"
#include "index/attributes.h"
#include "index/item_set.h"

namespace nestrec {

struct Predicate {
  enum class Kind {
    kAnyOf,    // the field has at least one of the values
    kAllOf,    // the field has all of the values
    kInRange,  // the field has a number in the range
    kExists,   // the field has a value
    kEvery,    // every child is met; with no children always
    kSome,     // at least one child is met; with no children never
    kNone,     // no child is met; with no children always
  };

  static Predicate AnyOf(std::string field, std::vector<AttributeValue> values);
  static Predicate AllOf(std::string field, std::vector<AttributeValue> values);
  static Predicate InRange(std::string field, NumberRange range);
  static Predicate Exists(std::string field);
  static Predicate Every(std::vector<Predicate> children);
  static Predicate Some(std::vector<Predicate> children);
  static Predicate None(std::vector<Predicate> children);

  Kind kind = Kind::kEvery;
  std::string field;
  std::vector<AttributeValue> values;
  NumberRange range;
  std::vector<Predicate> children;
};

// kInvalidArgument for one condition alone, its children aside: a field that no item has (the
// fields are listed), a range on a field without numbers, a limit or number that is not a number.
absl::Status CheckCondition(const Predicate& predicate, const AttributeView& view);

// The items of the view that meet the predicate. Errors of CheckCondition, of any depth.
// kResourceExhausted: out of memory.
absl::StatusOr<ItemSet> Matching(const Predicate& predicate, const AttributeView& view);

// Whether one item meets the predicate. REQUIRES: CheckCondition is ok at every depth.
bool Meets(const ItemAttributes& item, const Predicate& predicate);

}  // namespace nestrec
