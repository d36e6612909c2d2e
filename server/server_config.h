// The server's config file: protobuf text format, message nestrec.v1.ServerConfig
// (proto/nestrec/v1/server_config.proto describes every key).
//
// Thread safety: pure functions.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/tiers.h"

namespace nestrec {

// kInvalidArgument, with the source's name, line and column, for text that does not parse, unknown
// keys included; and, naming the tier, for a bad or repeated name, a dim below 1, or too many
// tiers.
absl::StatusOr<TierSettings> ParseServerConfig(absl::string_view text,
                                               absl::string_view source_name);

// Errors of ReadFile besides.
absl::StatusOr<TierSettings> ReadServerConfig(const std::string& path);

}  // namespace nestrec
