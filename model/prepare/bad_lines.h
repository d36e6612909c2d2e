// Collects the lines of input files that could not be used: how many, and the first few with what
// is wrong.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace nestrec {

class BadLines {
 public:
  // Keeps the messages of the first `shown` bad lines; `limit` is how many there may be, nothing:
  // any number.
  BadLines(int64_t shown, std::optional<int64_t> limit) : shown_(shown), limit_(limit) {}

  // kInvalidArgument, with the messages so far, as soon as there are more than the limit.
  absl::Status Add(absl::string_view path, int64_t line, absl::string_view what);

  int64_t count() const { return count_; }
  // "events.csv:17: 2 fields, but the header has 3"; printable, whatever the line holds.
  const std::vector<std::string>& messages() const { return messages_; }
  // The messages, one a line, each indented; says how many more there are.
  std::string ToString() const;

 private:
  int64_t shown_;
  std::optional<int64_t> limit_;
  int64_t count_ = 0;
  std::vector<std::string> messages_;
};

}  // namespace nestrec
