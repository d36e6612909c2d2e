// Reads one JSON value, or one Python literal: the Amazon metadata of 2014 has a Python dict per
// line.
//
//   ParseLiteral(R"({"asin": "B01", "price": 12.5})");
//   ParseLiteral("{'asin': u'B01', 'price': 12.5, 'related': None, 'tags': ('a', 'b')}");
//
// Taken beyond JSON: single quotes, Python's escapes (\x41 \u0041 \U00000041), a u or b before a
// string, True, False, None, tuples (as lists), commas before a closing bracket. Nothing is
// evaluated.
//
// Pure function; safe to call from any thread.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json_fwd.hpp"

namespace nestrec {

// kInvalidArgument with the column (in bytes, from 1) and what is wrong there: bad syntax, text
// that is not UTF-8, a number that no double holds, nesting deeper than 64. Of a key that comes
// twice the last counts.
absl::StatusOr<nlohmann::ordered_json> ParseLiteral(absl::string_view text);

}  // namespace nestrec
