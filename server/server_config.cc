#include "server/server_config.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/file.h"
#include "base/printable.h"
#include "base/status_macros.h"
#include "nestrec/v1/server_config.pb.h"
#include "server/text_proto.h"

namespace nestrec {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr int kMaxTiers = 32;
constexpr size_t kMaxNameBytes = 64;
constexpr double kMaxShare = 1000;
constexpr int kMaxPriority = 100;
constexpr int kMaxFilterFields = 256;
constexpr uint32_t kMaxCandidates = 1'000'000;

bool IsTierName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
         });
}

// Fills the widths, limits and queue of `into`. What is wrong, where something is.
std::string ReadLimits(const v1::Tier& tier, Tier& into) {
  const bool range = tier.has_min_dim() || tier.has_max_dim();
  if (range && tier.dim() != 0) {
    return "dim beside min_dim or max_dim; give one width or a range";
  }
  if (range && !tier.has_max_dim()) {
    return "min_dim without max_dim; give the widest of the model's sizes that it serves as well";
  }
  into.dim = range ? tier.max_dim() : tier.dim();
  if (into.dim < 1) {
    return absl::StrCat(range ? "max_dim " : "dim ", into.dim, "; give one of the model's sizes");
  }
  if (tier.has_min_dim() && (tier.min_dim() < 1 || tier.min_dim() > into.dim)) {
    return absl::StrCat("min_dim ", tier.min_dim(), "; give one of the model's sizes up to ",
                        into.dim);
  }
  into.min_dim = tier.min_dim();
  if (tier.has_max_k() && tier.max_k() < 1) {
    return "max_k 0; give at least 1, or leave it out";
  }
  into.max_k = tier.max_k();
  if (!tier.latency_budget().empty() &&
      (!absl::ParseDuration(tier.latency_budget(), &into.latency_budget) ||
       into.latency_budget <= absl::ZeroDuration())) {
    return absl::StrCat("latency_budget \"", Printable(tier.latency_budget()),
                        "\"; give a duration above 0, such as 20ms or 1.5s");
  }
  if (tier.has_queue_share()) {
    if (!(tier.queue_share() > 0 && tier.queue_share() <= kMaxShare)) {
      return absl::StrCat("queue_share ", tier.queue_share(), "; give a number above 0, at most ",
                          kMaxShare);
    }
    into.queue_share = tier.queue_share();
  }
  if (std::abs(static_cast<int64_t>(tier.priority())) > kMaxPriority) {
    return absl::StrCat("priority ", tier.priority(), "; give one from ", -kMaxPriority, " to ",
                        kMaxPriority);
  }
  into.priority = tier.priority();
  return "";
}

}  // namespace

absl::StatusOr<TierSettings> ParseServerConfig(absl::string_view text,
                                               absl::string_view source_name) {
  if (text.size() > kMaxBytes) {
    return absl::InvalidArgumentError(absl::StrCat(source_name, " has ", text.size(),
                                                   " bytes; a config file may have ", kMaxBytes));
  }
  v1::ServerConfig config;
  NESTREC_RETURN_IF_ERROR(ParseTextProto(text, source_name, config));
  const auto error = [&](auto&&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(source_name, ": ", parts...));
  };
  if (config.tiers_size() > kMaxTiers) {
    return error(config.tiers_size(), " tiers; at most ", kMaxTiers, " are allowed");
  }

  TierSettings settings{
      .tiers = {},
      .default_tier = config.default_tier(),
      .filter_fields = {config.filter_fields().begin(), config.filter_fields().end()},
      .source = std::string(source_name)};
  if (config.filter_fields_size() > kMaxFilterFields) {
    return error(config.filter_fields_size(), " filter_fields; at most ", kMaxFilterFields,
                 " are allowed");
  }
  for (const std::string& field : settings.filter_fields) {
    if (field.empty()) {
      return error("a filter_fields entry is empty; name a field of the catalogue");
    }
  }
  absl::flat_hash_set<std::string> names;
  for (const v1::Tier& tier : config.tiers()) {
    if (!IsTierName(tier.name())) {
      return error("tier name \"", Printable(tier.name()), "\" must be 1 to ", kMaxNameBytes,
                   " letters, digits, '_' and '-'");
    }
    if (!names.insert(tier.name()).second) {
      return error("two tiers are named \"", tier.name(), "\"");
    }
    Tier read{.name = tier.name()};
    if (const std::string wrong = ReadLimits(tier, read); !wrong.empty()) {
      return error("tier \"", tier.name(), "\" has ", wrong);
    }
    if (tier.index().empty() && !tier.index_parameters().empty()) {
      return error("tier \"", tier.name(), "\" has index_parameters \"",
                   Printable(tier.index_parameters()), "\" but no index; name the index as well");
    }
    IndexSpec index{.factory = tier.index().empty() ? IndexSpec().factory : tier.index(),
                    .parameters = tier.index_parameters()};
    if (tier.index_candidates() > kMaxCandidates) {
      return error("tier \"", tier.name(), "\" has index_candidates ", tier.index_candidates(),
                   "; at most ", kMaxCandidates, " are allowed");
    }
    if (tier.has_index_candidates()) {
      index.candidates = static_cast<int>(tier.index_candidates());
    }
    read.index = std::move(index);
    settings.tiers.push_back(std::move(read));
  }
  return settings;
}

absl::StatusOr<TierSettings> ReadServerConfig(const std::string& path) {
  NESTREC_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxBytes));
  return ParseServerConfig(text, path);
}

}  // namespace nestrec
