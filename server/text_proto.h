// Files in protobuf text format, with errors that say where.
//
// Thread safety: pure functions.
#pragma once

#include <google/protobuf/message.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace nestrec {

// kInvalidArgument, with the source's name, line and column, for text that does not parse as
// `message`, unknown keys included.
absl::Status ParseTextProto(absl::string_view text, absl::string_view source_name,
                            google::protobuf::Message& message);

}  // namespace nestrec
