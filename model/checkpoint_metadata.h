// A checkpoint's metadata: ModelInfo and structure to and from the string map of a safetensors
// header. docs/checkpoint_format.md lists the keys.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/nested_sizes.h"
#include "base/safetensors.h"
#include "model/checkpoint.h"

namespace nestrec {

struct CheckpointMetadata {
  NestedSizes sizes;
  int blocks;
  Architecture architecture;
  ModelInfo info;
};

std::map<std::string, std::string> MetadataOf(const ModelInfo& info, const NestedSizes& sizes,
                                              int blocks, const Architecture& architecture);

// kFailedPrecondition for a file of another kind or a newer format; kDataLoss, naming the key, for
// a value that is missing or impossible.
absl::StatusOr<CheckpointMetadata> ParseMetadata(
    const std::string& path, const std::map<std::string, std::string>& metadata);

// Adds every tensor of `source` whose name begins with `from`, renamed to begin with `to`, and the
// metadata entries likewise. `source` must outlive the writer's Write.
absl::Status CopyTensors(const SafetensorsFile& source, absl::string_view from,
                         absl::string_view to, SafetensorsWriter& writer);

}  // namespace nestrec
