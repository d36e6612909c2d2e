#include "server/catalogue_attributes.h"

#include <cmath>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "base/guard.h"
#include "model/item_record.h"

namespace nestrec {
namespace {

// "12.99" and "-3e2", but neither "nan", "0x10" nor " 5".
bool IsNumber(absl::string_view text, double* number) {
  if (text.empty() || text.size() > 32) {
    return false;
  }
  for (const char c : text) {
    const bool belongs = absl::ascii_isdigit(static_cast<unsigned char>(c)) || c == '.' ||
                         c == '-' || c == '+' || c == 'e' || c == 'E';
    if (!belongs) {
      return false;
    }
  }
  return absl::SimpleAtod(text, number) && std::isfinite(*number);
}

// Calls add_text, add_number and add_flag with (field, value) for what the record has of the wanted
// fields; none: of all.
template <typename AddText, typename AddNumber, typename AddFlag>
void ReadRecord(absl::string_view record, const absl::flat_hash_set<std::string>& wanted,
                AddText&& add_text, AddNumber&& add_number, AddFlag&& add_flag) {
  VisitRecord(record, [&](absl::string_view field, const RecordValue& value) {
    if (!wanted.empty() && !wanted.contains(field)) {
      return;
    }
    if (const auto* text = std::get_if<absl::string_view>(&value)) {
      add_text(field, *text);
      double number = 0;
      if (IsNumber(*text, &number)) {
        add_number(field, number);
      }
    } else if (const auto* number = std::get_if<double>(&value)) {
      add_number(field, *number);
    } else {
      add_flag(field, std::get<bool>(value));
    }
  });
}

CatalogueAttributes Read(const Catalogue& catalogue, const std::vector<std::string>& fields) {
  const absl::flat_hash_set<std::string> wanted(fields.begin(), fields.end());
  AttributeTable::Builder builder(catalogue.size());
  for (int32_t item = 1; item <= catalogue.size(); ++item) {
    ReadRecord(
        catalogue.record(item), wanted,
        [&](absl::string_view field, absl::string_view text) {
          builder.AddText(item, field, text);
        },
        [&](absl::string_view field, double number) { builder.AddNumber(item, field, number); },
        [&](absl::string_view field, bool flag) { builder.AddFlag(item, field, flag); });
  }
  const size_t dropped = builder.dropped_fields();
  return {.table = std::move(builder).Build(), .dropped_fields = dropped};
}

}  // namespace

ItemAttributes AttributesOf(absl::string_view record, const std::vector<std::string>& fields) {
  ItemAttributes attributes;
  ReadRecord(
      record, absl::flat_hash_set<std::string>(fields.begin(), fields.end()),
      [&](absl::string_view field, absl::string_view text) { attributes.AddText(field, text); },
      [&](absl::string_view field, double number) { attributes.AddNumber(field, number); },
      [&](absl::string_view field, bool flag) { attributes.AddFlag(field, flag); });
  return attributes;
}

absl::StatusOr<CatalogueAttributes> ReadAttributes(const Catalogue& catalogue,
                                                   const std::vector<std::string>& fields) {
  return Guard("reading the catalogue's fields",
               [&]() -> absl::StatusOr<CatalogueAttributes> { return Read(catalogue, fields); });
}

}  // namespace nestrec
