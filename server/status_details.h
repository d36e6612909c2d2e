// What nestrec adds to a status beyond code and message: which request fields are bad, and when to
// try again. Travels as absl::Status payloads of google.rpc.BadRequest and google.rpc.RetryInfo,
// which rpc_status.h puts on the wire.
//
// Thread safety: pure functions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace nestrec {

struct FieldViolation {
  std::string field;        // a path: "k", "history_item_ids[3]"
  std::string description;  // the value, the limit and the cure

  friend bool operator==(const FieldViolation&, const FieldViolation&) = default;
};

// kInvalidArgument with the violations as its message and its details. REQUIRES: at least one.
absl::Status BadRequest(const std::vector<FieldViolation>& violations);

// The violations of a status made by BadRequest here or by another server; empty when it has none.
std::vector<FieldViolation> FieldViolationsOf(const absl::Status& status);

// `status` with the advice to try again after `delay`.
absl::Status WithRetryDelay(absl::Status status, absl::Duration delay);
std::optional<absl::Duration> RetryDelayOf(const absl::Status& status);

}  // namespace nestrec
