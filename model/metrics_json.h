// Metrics as JSON, the form of checkpoints, training logs and `nestrec evaluate --json`:
//   {"dim":64,"users":22363,"recall@5":0.05,...,"ndcg@5":...,"mrr@50":...}
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "absl/status/statusor.h"
#include "model/metrics.h"

namespace nestrec {

nlohmann::ordered_json MetricsToJson(const SizeMetrics& metrics);
nlohmann::ordered_json MetricsToJson(const std::vector<SizeMetrics>& metrics);

// kInvalidArgument, naming the key, when a key is missing or not a number.
absl::StatusOr<std::vector<SizeMetrics>> MetricsFromJson(const nlohmann::ordered_json& json);

}  // namespace nestrec
