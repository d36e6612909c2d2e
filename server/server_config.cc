#include "server/server_config.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/printable.h"
#include "base/status_macros.h"
#include "nestrec/v1/server_config.pb.h"

namespace nestrec {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr int kMaxTiers = 32;
constexpr size_t kMaxNameBytes = 64;

class ErrorList final : public google::protobuf::io::ErrorCollector {
 public:
  explicit ErrorList(absl::string_view source) : source_(source) {}

  // Lines and columns come zero-based, -1 for errors about the whole.
  void AddError(int line, int column, const std::string& message) override {
    errors_.push_back(line < 0
                          ? absl::StrCat(source_, ": ", message)
                          : absl::StrCat(source_, ":", line + 1, ":", column + 1, ": ", message));
  }
  std::string Joined() const { return absl::StrJoin(errors_, "; "); }

 private:
  std::string source_;
  std::vector<std::string> errors_;
};

bool IsTierName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
         });
}

}  // namespace

absl::StatusOr<TierSettings> ParseServerConfig(absl::string_view text,
                                               absl::string_view source_name) {
  if (text.size() > kMaxBytes) {
    return absl::InvalidArgumentError(absl::StrCat(source_name, " has ", text.size(),
                                                   " bytes; a config file may have ", kMaxBytes));
  }
  ErrorList errors(source_name);
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  v1::ServerConfig config;
  if (!parser.ParseFromString(std::string(text), &config)) {
    return absl::InvalidArgumentError(errors.Joined());
  }
  const auto error = [&](auto&&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(source_name, ": ", parts...));
  };
  if (config.tiers_size() > kMaxTiers) {
    return error(config.tiers_size(), " tiers; at most ", kMaxTiers, " are allowed");
  }

  TierSettings settings{
      .tiers = {}, .default_tier = config.default_tier(), .source = std::string(source_name)};
  absl::flat_hash_set<std::string> names;
  for (const v1::Tier& tier : config.tiers()) {
    if (!IsTierName(tier.name())) {
      return error("tier name \"", Printable(tier.name()), "\" must be 1 to ", kMaxNameBytes,
                   " letters, digits, '_' and '-'");
    }
    if (!names.insert(tier.name()).second) {
      return error("two tiers are named \"", tier.name(), "\"");
    }
    if (tier.dim() < 1) {
      return error("tier \"", tier.name(), "\" has dim ", tier.dim(),
                   "; give one of the model's sizes");
    }
    IndexSpec index{.factory = tier.index().empty() ? IndexSpec().factory : tier.index(),
                    .parameters = tier.index_parameters()};
    settings.tiers.push_back({.name = tier.name(), .dim = tier.dim(), .index = std::move(index)});
  }
  return settings;
}

absl::StatusOr<TierSettings> ReadServerConfig(const std::string& path) {
  NESTREC_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxBytes));
  return ParseServerConfig(text, path);
}

}  // namespace nestrec
