// From the request logs of servers (server/request_recorder.h) to events as `nestrec prepare` reads
// them: {"user_id":"u","item_id":"a","timestamp":1738324800.123}, a line each, in the logs' order.
//
// Events of users that were forgotten afterwards are left out, whichever of the logs says so.
//
// Pure but for the files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace nestrec {

struct EventExport {
  int64_t events = 0;
  int64_t users = 0;      // of them
  int64_t forgotten = 0;  // events that were left out
  int64_t bad_lines = 0;  // that are no records, as a killed server leaves one
};

// `logs`: paths as given to --request-log; the files that were put aside are read as well. The
// output appears whole or not at all. kNotFound, naming it, for a log that is not there;
// kInvalidArgument when none has an event; errors of base/file.h.
absl::StatusOr<EventExport> ExportEvents(const std::vector<std::string>& logs,
                                         const std::string& output);

}  // namespace nestrec
