#include "model/prepare/catalogue_reader.h"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "model/prepare/line_reader.h"
#include "model/prepare/literal_parser.h"
#include "nlohmann/json.hpp"

namespace nestrec {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kLinesPerProgress = 4096;

// A string or an integer as text.
std::optional<std::string> IdText(const Json& value) {
  if (value.is_number_integer()) return value.dump();
  if (value.is_string() && !value.get_ref<const std::string&>().empty())
    return value.get<std::string>();
  return std::nullopt;
}

absl::StatusOr<std::string> FindId(const Json& record, const std::vector<std::string>& names) {
  if (!record.is_object()) return absl::InvalidArgumentError("not a JSON object");
  for (const std::string& name : names) {
    const auto field = record.find(name);
    if (field == record.end() || field->is_null()) continue;
    if (std::optional<std::string> id = IdText(*field)) return *std::move(id);
    return absl::InvalidArgumentError(
        absl::StrCat("the id field ", name, " is neither an integer nor a text"));
  }
  return absl::InvalidArgumentError(absl::StrCat("no id field (", absl::StrJoin(names, ", "), ")"));
}

}  // namespace

absl::StatusOr<int64_t> ReadCatalogue(
    const std::string& path, const CatalogueFormat& format, BadLines& bad_lines,
    const std::function<void(double)>& progress,
    const std::function<absl::Status(int64_t row, absl::string_view id, Json record)>& sink) {
  std::vector<std::string> names = {"item_id", "parent_asin", "asin",    "item",
                                    "itemid",  "product_id",  "movieid", "id"};
  if (!format.id_field.empty()) names = {format.id_field};
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<LineReader> lines, LineReader::Open(path));
  int64_t rows = 0;
  while (true) {
    if (lines->number() % kLinesPerProgress == 0) progress(lines->fraction());
    NESTREC_ASSIGN_OR_RETURN(const std::optional<absl::string_view> line, lines->Next());
    if (!line.has_value()) break;
    if (absl::StripAsciiWhitespace(*line).empty()) continue;
    const int64_t row = rows++;
    absl::StatusOr<Json> record = ParseLiteral(*line);
    const absl::StatusOr<std::string> id = record.ok() ? FindId(*record, names) : record.status();
    if (!id.ok()) {
      NESTREC_RETURN_IF_ERROR(bad_lines.Add(path, lines->number(), id.status().message()));
      continue;
    }
    NESTREC_RETURN_IF_ERROR(sink(row, *id, *std::move(record)));
  }
  progress(1);
  return rows;
}

std::string RecordLine(absl::string_view item_id, const Json& record) {
  Json line = Json::object();
  line["item_id"] = std::string(item_id);
  for (const auto& [name, value] : record.items()) {
    if (name == "item_id" || name == "id") {
      if (IdText(value) != std::string(item_id)) line[absl::StrCat("source_", name)] = value;
    } else {
      line[name] = value;
    }
  }
  return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace nestrec
