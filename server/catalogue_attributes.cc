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

CatalogueAttributes Read(const Catalogue& catalogue, const std::vector<std::string>& fields) {
  const absl::flat_hash_set<std::string> wanted(fields.begin(), fields.end());
  AttributeTable::Builder builder(catalogue.size());
  for (int32_t item = 1; item <= catalogue.size(); ++item) {
    VisitRecord(catalogue.record(item), [&](absl::string_view field, const RecordValue& value) {
      if (!wanted.empty() && !wanted.contains(field)) {
        return;
      }
      if (const auto* text = std::get_if<absl::string_view>(&value)) {
        builder.AddText(item, field, *text);
        double number = 0;
        if (IsNumber(*text, &number)) {
          builder.AddNumber(item, field, number);
        }
      } else if (const auto* number = std::get_if<double>(&value)) {
        builder.AddNumber(item, field, *number);
      } else {
        builder.AddFlag(item, field, std::get<bool>(value));
      }
    });
  }
  const size_t dropped = builder.dropped_fields();
  return {.table = std::move(builder).Build(), .dropped_fields = dropped};
}

}  // namespace

absl::StatusOr<CatalogueAttributes> ReadAttributes(const Catalogue& catalogue,
                                                   const std::vector<std::string>& fields) {
  return Guard("reading the catalogue's fields",
               [&]() -> absl::StatusOr<CatalogueAttributes> { return Read(catalogue, fields); });
}

}  // namespace nestrec
