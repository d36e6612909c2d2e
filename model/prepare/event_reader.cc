#include "model/prepare/event_reader.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/printable.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "model/prepare/csv_reader.h"
#include "model/prepare/line_reader.h"
#include "model/prepare/literal_parser.h"
#include "nlohmann/json.hpp"

namespace nestrec {
namespace {

constexpr size_t kMaxIdBytes = 1024;
constexpr int64_t kLinesPerProgress = 4096;

// What a field may be called.
struct FieldNames {
  absl::string_view what;
  std::vector<std::string> names;
  bool needed;
};

struct AllFieldNames {
  FieldNames user, item, timestamp, rating;
};

AllFieldNames NamesFor(const EventFormat& format) {
  const auto names = [](const std::string& given, std::vector<std::string> usual) {
    return given.empty() ? std::move(usual) : std::vector<std::string>{given};
  };
  return {
      .user = {"user",
               names(format.user_field,
                     {"user_id", "user", "userid", "reviewerID", "customer_id", "visitorid"}),
               true},
      .item = {"item",
               names(format.item_field,
                     {"item_id", "item", "itemid", "parent_asin", "asin", "product_id", "movieid"}),
               true},
      .timestamp = {"timestamp",
                    names(format.timestamp_field,
                          {"timestamp", "time", "unixReviewTime", "ts", "event_time", "date"}),
                    !format.without_timestamps},
      .rating = {"rating", names(format.rating_field, {"rating", "overall", "score", "stars"}),
                 format.with_ratings},
  };
}

// The values of one line, as text.
struct RawFields {
  absl::string_view user, item, timestamp, rating;
};

// What is wrong with the line; empty: nothing, and `event` is complete.
std::string ParseEvent(const RawFields& fields, const EventFormat& format, RawEvent& event) {
  for (const auto& [what, id] : {std::pair("user", fields.user), std::pair("item", fields.item)}) {
    if (id.empty()) return absl::StrCat("the ", what, " is empty");
    if (id.size() > kMaxIdBytes)
      return absl::StrCat("the ", what, " id is longer than ", kMaxIdBytes, " bytes");
    if (!IsValidUtf8(id))
      return absl::StrCat("the ", what, " id is not UTF-8; convert the file with iconv");
  }
  event = {.user = fields.user, .item = fields.item};
  if (!format.without_timestamps) {
    const auto time = ParseEventTime(fields.timestamp);
    if (!time.has_value()) {
      return absl::StrCat("'", fields.timestamp.substr(0, 40),
                          "' is no time (a number or ISO 8601)");
    }
    event.time = *time;
  }
  if (format.with_ratings && !fields.rating.empty()) {
    double rating = 0;
    if (!absl::SimpleAtod(fields.rating, &rating) || !std::isfinite(rating)) {
      return absl::StrCat("'", fields.rating.substr(0, 40), "' is no rating (a number)");
    }
    event.rating = rating;
  }
  return {};
}

// The columns of a delimited file that are used; -1: not there.
struct Columns {
  int user = -1, item = -1, timestamp = -1, rating = -1;
  size_t count = 0;
};

int FindColumn(std::span<const std::string> header, const FieldNames& field) {
  for (const std::string& name : field.names) {
    for (size_t i = 0; i < header.size(); ++i) {
      if (absl::EqualsIgnoreCase(header[i], name)) return static_cast<int>(i);
    }
  }
  return -1;
}

absl::StatusOr<Columns> ResolveColumns(std::span<const std::string> header,
                                       const EventFormat& format, const std::string& path) {
  const AllFieldNames names = NamesFor(format);
  const Columns columns{.user = FindColumn(header, names.user),
                        .item = FindColumn(header, names.item),
                        .timestamp = FindColumn(header, names.timestamp),
                        .rating = FindColumn(header, names.rating),
                        .count = header.size()};
  for (const auto& [field, column] :
       {std::pair(&names.user, columns.user), std::pair(&names.item, columns.item),
        std::pair(&names.timestamp, columns.timestamp), std::pair(&names.rating, columns.rating)}) {
    if (!field->needed || column >= 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has no ", field->what, " column; its columns are '",
                     Printable(absl::string_view(absl::StrJoin(header, "', '")).substr(0, 300)),
                     "'. If that is a header, name the column with --", field->what,
                     "-field; if the file has none, name all its columns in order, for example "
                     "--columns user,item,timestamp,rating",
                     field->what == "timestamp" ? "; if it has no times, --no-timestamps" : ""));
  }
  return columns;
}

bool EqualNames(std::span<const std::string> a, std::span<const std::string> b) {
  return std::equal(
      a.begin(), a.end(), b.begin(), b.end(),
      [](const std::string& x, const std::string& y) { return absl::EqualsIgnoreCase(x, y); });
}

// What both forms share: the way of a line's fields to the sink.
class EventSink {
 public:
  EventSink(const std::string& path, const EventFormat& format, BadLines& bad_lines,
            const std::function<absl::Status(const RawEvent&)>& sink)
      : path_(path), format_(format), bad_lines_(bad_lines), sink_(sink) {}

  absl::Status Add(int64_t line, const RawFields& fields) {
    RawEvent event;
    const std::string error = ParseEvent(fields, format_, event);
    if (!error.empty()) return AddBad(line, error);
    ++lines_;
    return sink_(event);
  }
  absl::Status AddBad(int64_t line, absl::string_view error) {
    ++lines_;
    return bad_lines_.Add(path_, line, error);
  }
  int64_t lines() const { return lines_; }

 private:
  const std::string& path_;
  const EventFormat& format_;
  BadLines& bad_lines_;
  const std::function<absl::Status(const RawEvent&)>& sink_;
  int64_t lines_ = 0;
};

absl::Status ReadDelimited(LineReader& lines, const std::string& delimiter,
                           const EventFormat& format, const std::function<void(double)>& progress,
                           EventSink& sink) {
  CsvReader reader(lines, delimiter);
  std::optional<Columns> columns;
  if (!format.columns.empty()) {
    NESTREC_ASSIGN_OR_RETURN(columns, ResolveColumns(format.columns, format, lines.path()));
  }
  for (int64_t count = 0;; ++count) {
    if (count % kLinesPerProgress == 0) progress(lines.fraction());
    NESTREC_ASSIGN_OR_RETURN(const std::optional<CsvReader::Record> record, reader.Next());
    if (!record.has_value()) return absl::OkStatus();
    const std::span<const std::string> fields = record->fields;
    if (count == 0 && !columns.has_value()) {
      NESTREC_ASSIGN_OR_RETURN(columns, ResolveColumns(fields, format, lines.path()));
      continue;
    }
    if (count == 0 && EqualNames(fields, format.columns)) continue;
    std::string error = record->error;
    if (error.empty() && fields.size() != columns->count) {
      error = absl::StrCat(fields.size(), fields.size() == 1 ? " field" : " fields",
                           ", but there are ", columns->count, " columns");
    }
    if (!error.empty()) {
      NESTREC_RETURN_IF_ERROR(sink.AddBad(record->line, error));
      continue;
    }
    const auto field = [&fields](int column) -> absl::string_view {
      return column < 0 ? absl::string_view()
                        : absl::string_view(fields[static_cast<size_t>(column)]);
    };
    NESTREC_RETURN_IF_ERROR(sink.Add(record->line, {.user = field(columns->user),
                                                    .item = field(columns->item),
                                                    .timestamp = field(columns->timestamp),
                                                    .rating = field(columns->rating)}));
  }
}

// A field of a JSON object as text: strings and numbers; nothing when it is missing or of another
// kind.
std::optional<std::string> JsonField(const nlohmann::ordered_json& object,
                                     const FieldNames& field) {
  for (const std::string& name : field.names) {
    for (const auto& [key, value] : object.items()) {
      if (!absl::EqualsIgnoreCase(key, name) || value.is_null()) continue;
      if (value.is_string()) return value.get<std::string>();
      if (value.is_number()) return value.dump();
      return std::nullopt;
    }
  }
  return std::nullopt;
}

absl::Status AddJsonLine(int64_t line, absl::string_view text, const AllFieldNames& names,
                         EventSink& sink) {
  const auto object = ParseLiteral(text);
  if (!object.ok()) return sink.AddBad(line, object.status().message());
  if (!object->is_object()) return sink.AddBad(line, "not a JSON object");
  std::string values[4];
  std::string* value = values;
  for (const FieldNames* field : {&names.user, &names.item, &names.timestamp, &names.rating}) {
    std::optional<std::string> found = JsonField(*object, *field);
    if (!found.has_value() && field->needed && field != &names.rating) {
      return sink.AddBad(line, absl::StrCat("no ", field->what, " (a string or a number called ",
                                            absl::StrJoin(field->names, ", "), ")"));
    }
    *value++ = std::move(found).value_or("");
  }
  return sink.Add(
      line, {.user = values[0], .item = values[1], .timestamp = values[2], .rating = values[3]});
}

absl::Status ReadJsonLines(LineReader& lines, const EventFormat& format,
                           const std::function<void(double)>& progress, EventSink& sink) {
  const AllFieldNames names = NamesFor(format);
  while (true) {
    if (lines.number() % kLinesPerProgress == 0) progress(lines.fraction());
    NESTREC_ASSIGN_OR_RETURN(const std::optional<absl::string_view> line, lines.Next());
    if (!line.has_value()) return absl::OkStatus();
    if (absl::StripAsciiWhitespace(*line).empty()) continue;
    NESTREC_RETURN_IF_ERROR(AddJsonLine(lines.number(), *line, names, sink));
  }
}

struct Form {
  bool json = false;
  std::string delimiter;
};

// By the name, else by the first line that is not empty.
absl::StatusOr<Form> FormOf(const std::string& path, const EventFormat& format) {
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<LineReader> lines, LineReader::Open(path));
  std::string first;
  while (absl::StripAsciiWhitespace(first).empty()) {
    NESTREC_ASSIGN_OR_RETURN(const std::optional<absl::string_view> line, lines->Next());
    if (!line.has_value()) break;
    first.assign(line->data(), line->size());
  }
  const absl::string_view name = absl::StripSuffix(path, ".gz");
  const auto ends_with = [&name](absl::string_view end) {
    return absl::EndsWithIgnoreCase(name, end);
  };
  const bool named_json = ends_with(".jsonl") || ends_with(".ndjson") || ends_with(".json");
  const bool named_delimited = ends_with(".csv") || ends_with(".tsv");
  Form form{.json = format.kind == EventFormat::Kind::kJsonLines, .delimiter = format.delimiter};
  if (format.kind == EventFormat::Kind::kAuto) {
    form.json = named_json || (!named_delimited &&
                               absl::StartsWith(absl::StripLeadingAsciiWhitespace(first), "{"));
  }
  if (form.delimiter.empty())
    form.delimiter = ends_with(".tsv") ? "\t" : CsvReader::GuessDelimiter(first);
  return form;
}

}  // namespace

absl::StatusOr<int64_t> ReadEvents(const std::string& path, const EventFormat& format,
                                   BadLines& bad_lines, const std::function<void(double)>& progress,
                                   const std::function<absl::Status(const RawEvent&)>& sink) {
  NESTREC_ASSIGN_OR_RETURN(const Form form, FormOf(path, format));
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<LineReader> lines, LineReader::Open(path));
  EventSink events(path, format, bad_lines, sink);
  if (form.json) {
    NESTREC_RETURN_IF_ERROR(ReadJsonLines(*lines, format, progress, events));
  } else {
    NESTREC_RETURN_IF_ERROR(ReadDelimited(*lines, form.delimiter, format, progress, events));
  }
  progress(1);
  return events.lines();
}

}  // namespace nestrec
