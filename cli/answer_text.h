// What the commands that ask a server print alike.
//
// Thread safety: pure, but for the standard output.
#pragma once

#include <google/protobuf/message.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace nestrec {

// "1.25 ms".
std::string MillisecondsText(absl::Duration duration);

// An answer as JSON, on several lines.
absl::Status PrintJson(const google::protobuf::Message& message);

// Ids that the server did not know, the first of them by name; nothing where there are none.
void PrintUnknown(absl::string_view what,
                  const google::protobuf::RepeatedPtrField<std::string>& ids, uint32_t count);

}  // namespace nestrec
