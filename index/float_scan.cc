#include "index/float_scan.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>

#include "index/first_exception.h"
#include "index/float_kernels.h"
#include "index/nested_kernels.h"

namespace nestrec {
namespace {

constexpr int64_t kBlock = 1024;                 // items
constexpr int64_t kItemsWorthThreads = 1 << 14;  // as Funnel's
constexpr size_t kQueriesWorthProduct = 2;
constexpr double kLargestProduct = 1e37;  // of norms: float ends at 3.4e38

double NormOf(std::span<const float> vector) {
  double squares = 0;
  for (const float value : vector)
    squares += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(squares);
}

// How far a float sum may be from the canonical score.
float ErrorOf(const NestedCodes& codes, std::span<const float> query) {
  constexpr double kUnit = 0x1p-24;
  const double n = static_cast<double>(codes.dim()) + codes.vectors().sizes.levels() + 8;
  const double gamma = n * kUnit / (1 - n * kUnit);
  const double underflow = 2 * n * static_cast<double>(std::numeric_limits<float>::min());
  const double error = gamma * NormOf(query) * codes.largest_norm() + underflow;
  return std::nextafter(static_cast<float>(error * (1 + 1e-6)),
                        std::numeric_limits<float>::infinity());
}

// What may still be among one query's best.
class Candidates {
 public:
  Candidates(const NestedCodesRequest& request, float error)
      : k_(static_cast<size_t>(request.options.k)),
        filter_(request.options.filter),
        twice_error_(2 * error),
        // The canonical score must reach it.
        floor_(request.options.min_score.has_value() ? *request.options.min_score - twice_error_
                                                     : -std::numeric_limits<float>::infinity()) {}

  // Sums of `count` items from row `begin`.
  void Add(const float* sums, int64_t begin, int64_t count) {
    int32_t selected[kBlock + 64];
    const int64_t found =
        SelectNotBelow(sums, count, floor_, static_cast<int32_t>(begin), selected);
    for (int64_t i = 0; i < found; ++i) {
      if (filter_ != nullptr && !filter_->Allows(selected[i] + 1)) continue;
      kept_.push_back({sums[selected[i] - begin], selected[i]});
    }
    if (kept_.size() >= 2 * k_ + static_cast<size_t>(kBlock / 4)) Tighten();
  }
  void AddAll(const Candidates& other) {
    kept_.insert(kept_.end(), other.kept_.begin(), other.kept_.end());
  }
  // Rows that can be among the best, ascending.
  std::vector<int32_t> Take() {
    Tighten();
    std::vector<int32_t> rows;
    for (const Kept& kept : kept_) rows.push_back(kept.row);
    std::sort(rows.begin(), rows.end());
    return rows;
  }

 private:
  struct Kept {
    float sum;
    int32_t row;
  };

  void Tighten() {
    if (kept_.size() <= k_) return;
    const auto kth = kept_.begin() + static_cast<std::ptrdiff_t>(k_ - 1);
    std::nth_element(kept_.begin(), kth, kept_.end(),
                     [](const Kept& a, const Kept& b) { return a.sum > b.sum; });
    floor_ = std::max(floor_, kth->sum - twice_error_);
    std::erase_if(kept_, [&](const Kept& kept) { return kept.sum < floor_; });
  }

  size_t k_;
  const ItemFilter* filter_;
  float twice_error_;
  float floor_;
  std::vector<Kept> kept_;
};

// Fills sums [queries][kBlock] for `count` items from row `begin`; row r is item r + 1.
void SumBlock(const NestedCodes& codes, std::span<const float> queries, size_t query_count,
              int64_t begin, int64_t count, float* sums) {
  const LevelVectors& vectors = codes.vectors();
  const int levels = vectors.sizes.levels();
  const int64_t dim = codes.dim();
  const auto rows_of = [&](int level) {
    return vectors.levels[static_cast<size_t>(level)].data() +
           (begin + 1) * vectors.sizes.width(level);
  };
  if (query_count < kQueriesWorthProduct) {
    std::vector<LevelRows> parts(static_cast<size_t>(levels));
    for (size_t q = 0; q < query_count; ++q) {
      for (int level = 0; level < levels; ++level) {
        parts[static_cast<size_t>(level)] = {
            queries.data() + static_cast<int64_t>(q) * dim + vectors.sizes.begin(level),
            rows_of(level), vectors.sizes.width(level)};
      }
      FloatDots(parts, count, sums + q * static_cast<size_t>(kBlock));
    }
    return;
  }
  std::vector<LevelBlock> blocks(static_cast<size_t>(levels));
  for (int level = 0; level < levels; ++level) {
    blocks[static_cast<size_t>(level)] = {rows_of(level), vectors.sizes.begin(level),
                                          vectors.sizes.width(level)};
  }
  FloatProducts(blocks, queries.data(), static_cast<int64_t>(query_count), dim, count, sums,
                kBlock);
}

}  // namespace

bool FloatScanHolds(const NestedCodes& codes, std::span<const float> query) {
  return NormOf(query) * codes.largest_norm() < kLargestProduct;
}

void FloatScan(std::span<const NestedCodesRequest* const> requests, std::span<TopItems* const> best,
               std::span<int64_t> scored) {
  const NestedCodes& codes = *requests[0]->codes;
  const int64_t items = codes.items();
  std::vector<float> queries;  // [requests, dim]
  std::vector<Candidates> candidates;
  for (const NestedCodesRequest* request : requests) {
    queries.insert(queries.end(), request->query.begin(), request->query.end());
    candidates.emplace_back(*request, ErrorOf(codes, request->query));
  }
  const int threads =
      items >= kItemsWorthThreads && omp_in_parallel() == 0 ? omp_get_max_threads() : 1;
  std::vector<std::vector<Candidates>> by_thread(static_cast<size_t>(threads), candidates);
  const int64_t blocks = (items + kBlock - 1) / kBlock;
  FirstException first;
#pragma omp parallel num_threads(threads) if (threads > 1)
  first.Guard([&] {
    std::vector<Candidates>& own = by_thread[static_cast<size_t>(omp_get_thread_num())];
    std::vector<float> sums(requests.size() * static_cast<size_t>(kBlock));
    const int64_t all = omp_get_num_threads();
    const int64_t me = omp_get_thread_num();
    for (int64_t block = me * blocks / all; block < (me + 1) * blocks / all; ++block) {
      const int64_t begin = block * kBlock;
      const int64_t count = std::min(kBlock, items - begin);
      SumBlock(codes, queries, requests.size(), begin, count, sums.data());
      for (size_t q = 0; q < requests.size(); ++q) {
        own[q].Add(sums.data() + q * static_cast<size_t>(kBlock), begin, count);
      }
    }
  });
  first.Rethrow();
  constexpr size_t kAtOnce = 256;
  for (size_t q = 0; q < requests.size(); ++q) {
    for (const std::vector<Candidates>& own : by_thread) candidates[q].AddAll(own[q]);
    const std::vector<int32_t> rows = candidates[q].Take();
    double sums[kAtOnce];
    float scores[kAtOnce];
    for (size_t from = 0; from < rows.size(); from += kAtOnce) {
      const auto some = std::span(rows).subspan(from, std::min(kAtOnce, rows.size() - from));
      codes.ScoresAt(requests[q]->query, some, sums, scores);
      for (size_t i = 0; i < some.size(); ++i) best[q]->Offer(some[i] + 1, scores[i]);
    }
    scored[q] = static_cast<int64_t>(rows.size());
  }
}

}  // namespace nestrec
