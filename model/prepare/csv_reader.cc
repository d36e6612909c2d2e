#include "model/prepare/csv_reader.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

// How far a quoted field may reach before its quote is taken for one that is never closed.
constexpr size_t kMaxRecordBytes = size_t{1} << 20;
constexpr size_t kMaxRecordLines = 10000;

}  // namespace

std::string CsvReader::GuessDelimiter(absl::string_view line) {
  std::string best = ",";
  size_t most = 0;
  for (const char* candidate : {",", "\t", "::", ";", "|"}) {
    size_t count = 0;
    for (size_t at = line.find(candidate); at != absl::string_view::npos;
         at = line.find(candidate, at + 1))
      ++count;
    if (count > most) {
      most = count;
      best = candidate;
    }
  }
  return best;
}

absl::StatusOr<std::optional<CsvReader::Line>> CsvReader::NextLine() {
  if (!pending_.empty()) {
    Line line = std::move(pending_.front());
    pending_.pop_front();
    return line;
  }
  NESTREC_ASSIGN_OR_RETURN(const std::optional<absl::string_view> text, lines_.Next());
  if (!text.has_value()) return std::nullopt;
  return Line{.number = lines_.number(), .text = std::string(*text)};
}

CsvReader::Split CsvReader::SplitRecord(absl::string_view record) {
  fields_.clear();
  size_t at = 0;
  while (true) {
    while (at < record.size() && record[at] == ' ') ++at;
    std::string& field = fields_.emplace_back();
    if (at < record.size() && record[at] == '"') {
      ++at;
      while (true) {
        const size_t quote = record.find('"', at);
        if (quote == absl::string_view::npos) return Split::kOpenQuote;
        field.append(record.data() + at, quote - at);
        at = quote + 1;
        if (at >= record.size() || record[at] != '"') break;
        field.push_back('"');
        ++at;
      }
      while (at < record.size() && record[at] == ' ') ++at;
      if (at < record.size() && record.substr(at, delimiter_.size()) != delimiter_)
        return Split::kTextAfterQuote;
    } else {
      const size_t end = std::min(record.find(delimiter_, at), record.size());
      const absl::string_view plain =
          absl::StripTrailingAsciiWhitespace(record.substr(at, end - at));
      field.assign(plain.data(), plain.size());
      at = end;
    }
    if (at >= record.size()) return Split::kComplete;
    at += delimiter_.size();
  }
}

absl::StatusOr<std::optional<CsvReader::Record>> CsvReader::Next() {
  std::optional<Line> first;
  do {
    NESTREC_ASSIGN_OR_RETURN(first, NextLine());
    if (!first.has_value()) return std::nullopt;
  } while (absl::StripAsciiWhitespace(first->text).empty());

  Split split = SplitRecord(first->text);
  if (split == Split::kOpenQuote) {
    std::string record = first->text;
    std::deque<Line> used;
    while (split == Split::kOpenQuote && record.size() < kMaxRecordBytes &&
           used.size() < kMaxRecordLines) {
      NESTREC_ASSIGN_OR_RETURN(std::optional<Line> line, NextLine());
      if (!line.has_value()) break;
      absl::StrAppend(&record, "\n", line->text);
      if (line->text.find('"') != std::string::npos) split = SplitRecord(record);
      used.push_back(*std::move(line));
    }
    if (split != Split::kComplete) {
      pending_.insert(pending_.begin(), std::make_move_iterator(used.begin()),
                      std::make_move_iterator(used.end()));
    }
  }
  Record record{.line = first->number, .fields = fields_, .error = {}};
  if (split == Split::kOpenQuote) record.error = "a quoted field is never closed";
  if (split == Split::kTextAfterQuote)
    record.error = "text after a closing quote (a quote inside a field is doubled)";
  return record;
}

}  // namespace nestrec
