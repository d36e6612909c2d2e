// Fields of an item's record: one JSON object as text, a line of items.jsonl.
//
//   RecordField(R"({"title": "Soap", "price": 1.50, "categories": ["Bath", "Soap"]})",
//   "categories")
//   // "Bath, Soap"
//
// Strings come as they are, numbers as written (1.50 stays 1.50), true and false as these words;
// lists and objects, nested or not, are their values joined by ", ". A field that is missing or
// null, and any field of a text that is not a JSON object, is empty. Of a key that comes twice the
// first counts. No more of a text is looked at than finding the field takes, so what is wrong with
// the rest of it, or with numbers before it, may go unseen.
//
// Pure functions; safe to call from any thread.
#pragma once

#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"

namespace nestrec {

std::string RecordField(absl::string_view record, absl::string_view name);

// One value per name, the record read once.
std::vector<std::string> RecordFields(absl::string_view record, std::span<const std::string> names);

// A value as it stands in the record: a text, a number, true or false. Large whole numbers are
// rounded to double.
using RecordValue = std::variant<absl::string_view, double, bool>;

// Calls visit(field, value) for every value of every field of the record, in their order; of lists
// and objects for each value inside. Null is no value. Of a key that comes twice both count. A text
// that is not a JSON object ends where it stops being one.
void VisitRecord(absl::string_view record,
                 absl::FunctionRef<void(absl::string_view field, const RecordValue& value)> visit);

}  // namespace nestrec
