#include "server/lifecycle/model_labels.h"

#include <google/protobuf/text_format.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/printable.h"
#include "base/status_macros.h"
#include "server/text_proto.h"

namespace nestrec {
namespace {

constexpr absl::string_view kFile = "labels.textproto";
constexpr size_t kMaxBytes = 1 << 16;
constexpr absl::string_view kNewest = "*";

std::string PathIn(const std::string& folder) { return absl::StrCat(folder, "/", kFile); }

std::string NamesOf(std::span<const ModelFile> files) {
  constexpr size_t kShown = 10;  // the newest
  const auto shown = files.last(std::min(files.size(), kShown));
  return absl::StrCat(shown.size() < files.size() ? "..., " : "",
                      absl::StrJoin(shown, ", ", [](std::string* out, const ModelFile& file) {
                        absl::StrAppend(out, file.name);
                      }));
}

}  // namespace

absl::Status CheckModelLabels(const v1::ModelLabels& labels, absl::string_view source) {
  const auto error = [&](auto&&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": ", parts...));
  };
  const auto is_share = [](double share) { return share >= 0 && share <= 1; };
  if (!is_share(labels.canary_share())) {
    return error("canary_share is ", labels.canary_share(), "; give 0 to 1");
  }
  if (!is_share(labels.shadow_share())) {
    return error("shadow_share is ", labels.shadow_share(), "; give 0 to 1");
  }
  if (labels.stable() == kNewest) {
    return error("stable is \"*\"; leave it empty for the newest version");
  }
  if (labels.canary() == kNewest && labels.stable().empty()) {
    return error("canary \"*\", the newest version, needs a stable one that is named");
  }
  if (!labels.canary().empty() && labels.canary() == labels.stable()) {
    return error("canary and stable are both \"", Printable(labels.stable()),
                 "\"; leave canary empty to have none");
  }
  if (labels.canary().empty() && (labels.canary_share() > 0 || labels.shadow_share() > 0)) {
    return error("canary_share ", labels.canary_share(), " and shadow_share ",
                 labels.shadow_share(), " without a canary; name one, or leave them out");
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::ModelLabels> ReadModelLabels(const std::string& folder) {
  const std::string path = PathIn(folder);
  const absl::StatusOr<std::string> text = ReadFile(path, kMaxBytes);
  v1::ModelLabels labels;
  if (absl::IsNotFound(text.status())) return labels;
  NESTREC_RETURN_IF_ERROR(text.status());
  NESTREC_RETURN_IF_ERROR(ParseTextProto(*text, path, labels));
  NESTREC_RETURN_IF_ERROR(CheckModelLabels(labels, path));
  return labels;
}

absl::Status WriteModelLabels(const std::string& folder, const v1::ModelLabels& labels) {
  std::string text;
  google::protobuf::TextFormat::PrintToString(labels, &text);
  return WriteFileAtomically(
      PathIn(folder),
      absl::StrCat(
          "# Which version serves whom; proto/nestrec/v1/model_labels.proto has the keys.\n",
          text));
}

Rollout ResolveLabels(const v1::ModelLabels& labels, std::span<const ModelFile> files,
                      const std::function<bool(const ModelFile&)>& refused) {
  Rollout rollout;
  const auto named = [&](absl::string_view label,
                         const std::string& name) -> std::optional<ModelFile> {
    const auto found = std::find_if(files.begin(), files.end(),
                                    [&](const ModelFile& file) { return file.name == name; });
    if (found == files.end()) {
      rollout.complaint =
          absl::StrCat(label, " is to be \"", Printable(name), "\", which is not there; there ",
                       files.empty() ? "is nothing" : absl::StrCat("are ", NamesOf(files)));
      return std::nullopt;
    }
    if (refused(*found)) {
      rollout.complaint =
          absl::StrCat(label, " is to be \"", Printable(name), "\", which was refused");
      return std::nullopt;
    }
    return *found;
  };
  const auto newest = [&](const std::string& but) -> std::optional<ModelFile> {
    for (size_t i = files.size(); i-- > 0;) {
      if (files[i].name != but && !refused(files[i])) return files[i];
    }
    return std::nullopt;
  };
  if (labels.canary() == kNewest) {
    rollout.canary = newest(labels.stable());
    if (rollout.canary.has_value() && !NaturalLess(labels.stable(), rollout.canary->name)) {
      rollout.canary.reset();  // the stable one is the newest
    }
  } else if (!labels.canary().empty()) {
    rollout.canary = named("canary", labels.canary());
  }
  rollout.stable =
      labels.stable().empty() ? newest(labels.canary()) : named("stable", labels.stable());
  return rollout;
}

}  // namespace nestrec
