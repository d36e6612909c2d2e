// Ranking metrics of a next-item recommender, from the rank of the one relevant item.
//
// With one relevant item at rank r (1 = best): Recall@k = [r <= k], MRR@k = [r <= k] / r,
// NDCG@k = [r <= k] / log2(r + 1); a metric is the mean over users.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace nestrec {

inline constexpr std::array<int, 4> kMetricCutoffs = {5, 10, 20, 50};

struct RankingMetrics {
  int64_t users = 0;
  std::array<double, kMetricCutoffs.size()> recall{};
  std::array<double, kMetricCutoffs.size()> ndcg{};
  std::array<double, kMetricCutoffs.size()> mrr{};
};

// Ranks are 1-based. No ranks give zeros.
RankingMetrics MetricsOfRanks(const std::vector<int64_t>& ranks);

// The metrics of one size of a model.
struct SizeMetrics {
  int dim = 0;
  RankingMetrics metrics;
};

}  // namespace nestrec
