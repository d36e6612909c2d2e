#include "model/prepare/feature_rows.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/printable.h"
#include "base/status_macros.h"
#include "model/prepare/line_reader.h"

namespace nestrec {

absl::StatusOr<RowOfId> ReadFeatureIds(const std::string& path) {
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<LineReader> lines, LineReader::Open(path));
  RowOfId rows;
  int64_t empty_line = 0;
  while (true) {
    NESTREC_ASSIGN_OR_RETURN(const std::optional<absl::string_view> line, lines->Next());
    if (!line.has_value()) return rows;
    const absl::string_view id = absl::StripAsciiWhitespace(*line);
    if (id.empty()) {
      if (empty_line == 0) empty_line = lines->number();
      continue;
    }
    if (empty_line != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ":", empty_line, ": the line is empty; line r is the item id of row r-1"));
    }
    const auto [found, inserted] = rows.try_emplace(std::string(id), lines->number() - 1);
    if (!inserted) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":", lines->number(), ": the item id '",
                                                     Printable(id), "' is already on line ",
                                                     found->second + 1));
    }
  }
}

Matrix SelectRows(const Matrix& matrix, std::span<const int64_t> rows) {
  Matrix selected{.rows = static_cast<int64_t>(rows.size()), .columns = matrix.columns};
  selected.values.resize(rows.size() * static_cast<size_t>(matrix.columns));
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] < 0) continue;
    const std::span<const float> row = matrix.row(rows[i]);
    std::copy(row.begin(), row.end(), selected.row(static_cast<int64_t>(i)).begin());
  }
  return selected;
}

}  // namespace nestrec
