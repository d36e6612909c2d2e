#include "model/metrics_json.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

using Json = nlohmann::ordered_json;
using Cutoffs = std::array<double, kMetricCutoffs.size()>;

absl::StatusOr<double> Number(const Json& json, const std::string& key) {
  if (!json.is_object() || !json.contains(key) || !json[key].is_number()) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics: '", key, "' is missing or not a number"));
  }
  return json[key].get<double>();
}

template <typename Metrics>
auto Fields(Metrics& metrics) {
  return std::array{std::pair("recall@", &metrics.recall), std::pair("ndcg@", &metrics.ndcg),
                    std::pair("mrr@", &metrics.mrr)};
}

}  // namespace

Json MetricsToJson(const SizeMetrics& metrics) {
  Json json;
  json["dim"] = metrics.dim;
  json["users"] = metrics.metrics.users;
  for (const auto& [name, values] : Fields(metrics.metrics)) {
    for (size_t i = 0; i < kMetricCutoffs.size(); ++i) {
      // Six decimals: a user of a million still counts, and files stay readable.
      json[absl::StrCat(name, kMetricCutoffs[i])] = std::round((*values)[i] * 1e6) / 1e6;
    }
  }
  return json;
}

Json MetricsToJson(const std::vector<SizeMetrics>& metrics) {
  Json json = Json::array();
  for (const SizeMetrics& size : metrics) json.push_back(MetricsToJson(size));
  return json;
}

absl::StatusOr<std::vector<SizeMetrics>> MetricsFromJson(const Json& json) {
  if (!json.is_array()) return absl::InvalidArgumentError("metrics: not a JSON array");
  std::vector<SizeMetrics> result;
  for (const Json& entry : json) {
    SizeMetrics& size = result.emplace_back();
    NESTREC_ASSIGN_OR_RETURN(const double dim, Number(entry, "dim"));
    NESTREC_ASSIGN_OR_RETURN(const double users, Number(entry, "users"));
    size.dim = static_cast<int>(dim);
    size.metrics.users = static_cast<int64_t>(users);
    for (const auto& [name, values] : Fields(size.metrics)) {
      for (size_t i = 0; i < kMetricCutoffs.size(); ++i) {
        NESTREC_ASSIGN_OR_RETURN((*values)[i],
                                 Number(entry, absl::StrCat(name, kMetricCutoffs[i])));
      }
    }
  }
  return result;
}

}  // namespace nestrec
