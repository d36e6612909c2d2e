// Records of a delimited text file (RFC 4180): fields may be quoted, a quote inside is doubled, a
// quoted field may hold delimiters and line ends. The delimiter may be longer than one character
// ("::"). Spaces around a field that is not quoted are dropped; empty lines are skipped.
//
// A quote that is never closed spoils its own line only: reading goes on with the next one.
// Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/prepare/line_reader.h"

namespace nestrec {

class CsvReader {
 public:
  struct Record {
    int64_t line;                         // on which it begins
    std::span<const std::string> fields;  // valid until the next call
    std::string error;                    // what is wrong with the record; empty: nothing
  };

  // `lines` must outlive the reader. REQUIRES: !delimiter.empty().
  CsvReader(LineReader& lines, std::string delimiter)
      : lines_(lines), delimiter_(std::move(delimiter)) {}

  // The next record; nothing at the end. The errors are LineReader's: a bad record is no error.
  absl::StatusOr<std::optional<Record>> Next();

  // The delimiter that occurs most often in `line`, of those in common use.
  static std::string GuessDelimiter(absl::string_view line);

 private:
  struct Line {
    int64_t number;
    std::string text;
  };
  enum class Split { kComplete, kOpenQuote, kTextAfterQuote };

  absl::StatusOr<std::optional<Line>> NextLine();
  // Splits `record` into fields_.
  Split SplitRecord(absl::string_view record);

  LineReader& lines_;
  std::string delimiter_;
  std::deque<Line> pending_;  // read ahead, not used yet
  std::vector<std::string> fields_;
};

}  // namespace nestrec
