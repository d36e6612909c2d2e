// Which version of a model folder serves whom: labels.textproto, message nestrec.v1.ModelLabels.
//
// Thread safety: pure functions, but for the file.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nestrec/v1/model_labels.pb.h"
#include "server/lifecycle/model_folder.h"

namespace nestrec {

// kInvalidArgument, naming the source and the key, for labels that contradict each other or a share
// outside 0 to 1.
absl::Status CheckModelLabels(const v1::ModelLabels& labels, absl::string_view source);

// Of a folder; empty labels where it has no such file. Errors of ReadFile, ParseTextProto and
// CheckModelLabels.
absl::StatusOr<v1::ModelLabels> ReadModelLabels(const std::string& folder);

// Errors of WriteFileAtomically.
absl::Status WriteModelLabels(const std::string& folder, const v1::ModelLabels& labels);

// The files that should serve.
struct Rollout {
  std::optional<ModelFile> stable;
  std::optional<ModelFile> canary;
  // What the labels name and cannot have; empty: nothing.
  std::string complaint;
};

// `files` in natural order; those that `refused` names are not chosen, but where a label names them
// itself the complaint says so.
Rollout ResolveLabels(const v1::ModelLabels& labels, std::span<const ModelFile> files,
                      const std::function<bool(const ModelFile&)>& refused);

}  // namespace nestrec
