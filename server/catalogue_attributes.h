// The catalogue's fields as columns that filters and caps can use.
//
// Thread safety: pure functions.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "index/attribute_view.h"
#include "index/attributes.h"
#include "model/catalogue.h"

namespace nestrec {

struct CatalogueAttributes {
  AttributeTable table;
  size_t dropped_fields = 0;  // beyond AttributeTable::kMaxFields
};

// The same of one record.
ItemAttributes AttributesOf(absl::string_view record, const std::vector<std::string>& fields);

// `fields`: the names to keep; none: all. A text that is a number as a whole is kept as both.
// kResourceExhausted: out of memory.
absl::StatusOr<CatalogueAttributes> ReadAttributes(const Catalogue& catalogue,
                                                   const std::vector<std::string>& fields);

}  // namespace nestrec
