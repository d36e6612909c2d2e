#include "cli/event_export.h"

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "base/file.h"
#include "base/json_text.h"
#include "base/status_macros.h"
#include "model/prepare/line_reader.h"
#include "server/line_file.h"

namespace nestrec {
namespace {

using Json = nlohmann::json;

struct Event {
  std::string item_id;
  int64_t time_ms;
};

struct Record {
  std::string time;  // RFC 3339 in UTC, always as many digits: sorts as time does
  std::string user_id;
  bool forgets = false;
  std::vector<Event> events;
};

std::optional<std::string> TextOf(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string()) return std::nullopt;
  return found->get<std::string>();
}

// What a line says of a user's events. Ok and nothing: it is about something else.
absl::StatusOr<std::optional<Record>> RecordOf(absl::string_view line) {
  const absl::Status bad = absl::InvalidArgumentError("no record");
  const Json object = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return bad;
  const std::optional<std::string> type = TextOf(object, "type");
  if (!type.has_value()) return bad;
  if (*type != "events" && *type != "forget") return std::nullopt;
  const std::optional<std::string> time = TextOf(object, "time");
  const std::optional<std::string> user = TextOf(object, "user_id");
  if (!time.has_value() || !user.has_value()) return bad;
  Record record{.time = *time, .user_id = *user, .forgets = *type == "forget", .events = {}};
  if (record.forgets) return record;
  const auto events = object.find("events");
  if (events == object.end() || !events->is_array()) return bad;
  for (const Json& event : *events) {
    if (!event.is_object()) return bad;
    const std::optional<std::string> item = TextOf(event, "item_id");
    const auto time_ms = event.find("time_ms");
    if (!item.has_value() || time_ms == event.end() || !time_ms->is_number_integer()) return bad;
    record.events.push_back({*item, time_ms->get<int64_t>()});
  }
  return record;
}

// Gives `visit` every record of the logs; returns how many lines are none.
absl::StatusOr<int64_t> ForEachRecord(const std::vector<std::string>& logs,
                                      absl::FunctionRef<absl::Status(const Record&)> visit) {
  int64_t bad_lines = 0;
  for (const std::string& log : logs) {
    const std::vector<std::string> files = LineFilesOf(log);
    if (files.empty()) {
      return absl::NotFoundError(
          absl::StrCat(log, " is not there; give the path that a server got as --request-log"));
    }
    for (const std::string& file : files) {
      NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<LineReader> lines, LineReader::Open(file));
      for (;;) {
        NESTREC_ASSIGN_OR_RETURN(const std::optional<absl::string_view> line, lines->Next());
        if (!line.has_value()) break;
        const absl::StatusOr<std::optional<Record>> record = RecordOf(*line);
        bad_lines += record.ok() ? 0 : 1;
        if (record.ok() && record->has_value()) NESTREC_RETURN_IF_ERROR(visit(**record));
      }
    }
  }
  return bad_lines;
}

// Seconds since 1970, to the millisecond.
std::string SecondsOf(int64_t time_ms) {
  const uint64_t magnitude =
      time_ms < 0 ? uint64_t{0} - static_cast<uint64_t>(time_ms) : static_cast<uint64_t>(time_ms);
  return absl::StrFormat("%s%d.%03d", time_ms < 0 ? "-" : "", magnitude / 1000, magnitude % 1000);
}

}  // namespace

absl::StatusOr<EventExport> ExportEvents(const std::vector<std::string>& logs,
                                         const std::string& output) {
  EventExport result;
  std::map<std::string, std::string> forgotten;  // user -> when, for the last time
  NESTREC_ASSIGN_OR_RETURN(result.bad_lines,
                           ForEachRecord(logs, [&](const Record& record) -> absl::Status {
                             if (record.forgets) {
                               std::string& last = forgotten[record.user_id];
                               last = std::max(last, record.time);
                             }
                             return absl::OkStatus();
                           }));
  NESTREC_ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFileWriter> writer,
                           AtomicFileWriter::Create(output));
  std::set<std::string> users;
  NESTREC_RETURN_IF_ERROR(ForEachRecord(logs, [&](const Record& record) -> absl::Status {
                            const auto found = forgotten.find(record.user_id);
                            if (found != forgotten.end() && record.time <= found->second) {
                              result.forgotten += static_cast<int64_t>(record.events.size());
                              return absl::OkStatus();
                            }
                            for (const Event& event : record.events) {
                              std::string line = "{\"user_id\":";
                              AppendJsonText(record.user_id, line);
                              line += ",\"item_id\":";
                              AppendJsonText(event.item_id, line);
                              absl::StrAppend(&line, ",\"timestamp\":", SecondsOf(event.time_ms),
                                              "}\n");
                              NESTREC_RETURN_IF_ERROR(writer->Write(line));
                              ++result.events;
                              users.insert(record.user_id);
                            }
                            return absl::OkStatus();
                          }).status());
  if (result.events == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        logs.front(), logs.size() > 1 ? " and the others have" : " has",
        " no events: a server writes those that RecordEvents brings of the users in its "
        "--request-log-share"));
  }
  NESTREC_RETURN_IF_ERROR(writer->Commit());
  result.users = static_cast<int64_t>(users.size());
  return result;
}

}  // namespace nestrec
