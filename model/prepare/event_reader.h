// Reads event logs: who did something with which item, and when.
//
// Two forms, plain or gzip: delimited text (CSV, TSV, "::"; see csv_reader.h) and JSON lines.
// Fields are found by name, in the header or in the object. A name that the format does not give is
// the first of these that is there (upper and lower case are the same):
//
//   user       user_id, user, userid, reviewerID, customer_id, visitorid
//   item       item_id, item, itemid, parent_asin, asin, product_id, movieid
//   timestamp  timestamp, time, unixReviewTime, ts, event_time, date
//   rating     rating, overall, score, stars
//
// So the public Amazon review files (reviewerID, asin, unixReviewTime, overall) read as they are.
// Pure functions apart from the file; safe to call from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/prepare/bad_lines.h"
#include "model/prepare/event_time.h"

namespace nestrec {

struct EventFormat {
  enum class Kind { kAuto, kDelimited, kJsonLines };

  Kind kind = Kind::kAuto;  // by the file's name, else by its first line
  std::string delimiter;    // empty: the usual one that the first line has most of
  // For a file without a header line: its columns' names, in order. A first line that equals them
  // is skipped.
  std::vector<std::string> columns;
  // Names to use instead of the list above; empty: as above.
  std::string user_field;
  std::string item_field;
  std::string timestamp_field;
  std::string rating_field;
  // The log has no times: its order is the order of the events.
  bool without_timestamps = false;
  // Ratings are read, and a line with a rating that is no number is bad.
  bool with_ratings = false;
};

struct RawEvent {
  absl::string_view user;  // not empty, UTF-8; valid during the call
  absl::string_view item;
  EventTime time;  // zero without timestamps
  std::optional<double> rating;
};

// Calls `sink` for every good line, in file order, and `progress` now and then with the part that
// is read; either's error ends the reading. Bad lines go to `bad_lines`. Returns how many lines had
// an event or were bad. kInvalidArgument for a file whose header has not the fields that are
// needed; errors of LineReader besides.
absl::StatusOr<int64_t> ReadEvents(const std::string& path, const EventFormat& format,
                                   BadLines& bad_lines, const std::function<void(double)>& progress,
                                   const std::function<absl::Status(const RawEvent&)>& sink);

}  // namespace nestrec
