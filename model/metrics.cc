#include "model/metrics.h"

#include <cmath>

namespace nestrec {

RankingMetrics MetricsOfRanks(const std::vector<int64_t>& ranks) {
  RankingMetrics metrics;
  metrics.users = static_cast<int64_t>(ranks.size());
  if (ranks.empty()) return metrics;
  for (const int64_t rank : ranks) {
    for (size_t i = 0; i < kMetricCutoffs.size(); ++i) {
      if (rank > kMetricCutoffs[i]) continue;
      metrics.recall[i] += 1.0;
      metrics.ndcg[i] += 1.0 / std::log2(static_cast<double>(rank) + 1.0);
      metrics.mrr[i] += 1.0 / static_cast<double>(rank);
    }
  }
  const double users = static_cast<double>(ranks.size());
  for (size_t i = 0; i < kMetricCutoffs.size(); ++i) {
    metrics.recall[i] /= users;
    metrics.ndcg[i] /= users;
    metrics.mrr[i] /= users;
  }
  return metrics;
}

}  // namespace nestrec
