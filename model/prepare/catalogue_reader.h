// Reads raw catalogues: a JSON object per line, plain or gzip, in the forms that literal_parser.h
// takes, so that the public Amazon metadata files (Python dicts in 2014, JSON later) read as they
// are.
//
// The external id is the first of item_id, parent_asin, asin, item, itemid, product_id, movieid, id
// that the record has, a string or an integer.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/prepare/bad_lines.h"
#include "nlohmann/json_fwd.hpp"

namespace nestrec {

struct CatalogueFormat {
  std::string id_field;  // empty: as above
};

// Calls `sink` with the row (0-based, counting bad lines too, but not empty ones), the id and the
// record, in file order, and `progress` now and then with the part that is read. Returns the number
// of rows. Errors of LineReader and of `sink`; a bad line goes to `bad_lines`.
absl::StatusOr<int64_t> ReadCatalogue(
    const std::string& path, const CatalogueFormat& format, BadLines& bad_lines,
    const std::function<void(double)>& progress,
    const std::function<absl::Status(int64_t row, absl::string_view id,
                                     nlohmann::ordered_json record)>& sink);

// The record as a line of items.jsonl: item_id first, then the other fields as they are. A field
// item_id or id that says something else becomes source_item_id or source_id.
std::string RecordLine(absl::string_view item_id, const nlohmann::ordered_json& record);

}  // namespace nestrec
