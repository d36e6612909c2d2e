#include "index/float_scan.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>

#include "index/first_exception.h"
#include "index/float_kernels.h"
#include "index/float_products.h"
#include "index/nested_kernels.h"

namespace nestrec {
namespace {

constexpr int64_t kBlock = 80 * kProductRows;      // items
constexpr int64_t kFirstBlock = 8 * kProductRows;  // few, before there is a score to reach
constexpr int64_t kItemsWorthThreads = 1 << 14;    // as Funnel's
constexpr size_t kSpare = 64;             // candidates beyond twice k before the worst are dropped
constexpr double kLargestProduct = 1e37;  // of norms: float ends at 3.4e38

double NormOf(std::span<const float> vector) {
  double squares = 0;
  for (const float value : vector)
    squares += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(squares);
}

float FloatAbove(double error) {
  return std::nextafter(static_cast<float>(error * (1 + 1e-6)),
                        std::numeric_limits<float>::infinity());
}

// How far a float sum may be from the canonical score.
float ErrorOf(const NestedCodes& codes, std::span<const float> query) {
  constexpr double kUnit = 0x1p-24;
  const double n = static_cast<double>(codes.dim()) + codes.vectors().sizes.levels() + 8;
  const double gamma = n * kUnit / (1 - n * kUnit);
  const double underflow = 2 * n * static_cast<double>(std::numeric_limits<float>::min());
  return FloatAbove(gamma * NormOf(query) * codes.largest_norm() + underflow);
}

float FloatBelow(double value) {
  constexpr double kLargest = std::numeric_limits<float>::max();
  return std::nextafter(static_cast<float>(std::clamp(value, -kLargest, kLargest)),
                        -std::numeric_limits<float>::infinity());
}

// What may still be among one query's best. Canonical scores are within `error` of `offset` and the
// sums that are added.
class Candidates {
 public:
  Candidates(const NestedCodesRequest& request, float error, double offset)
      : k_(static_cast<size_t>(request.options.k)),
        filter_(request.options.filter),
        twice_error_(2 * error),
        // The canonical score must reach it.
        floor_(request.options.min_score.has_value()
                   ? FloatBelow(static_cast<double>(*request.options.min_score) - offset -
                                static_cast<double>(twice_error_))
                   : -std::numeric_limits<float>::infinity()) {}

  // A sum that does not reach it is not worth adding.
  float floor() const { return floor_; }
  void Add(float sum, int32_t row) {
    if (sum < floor_ || (filter_ != nullptr && !filter_->Allows(row + 1))) return;
    sums_.push_back(sum);
    rows_.push_back(row);
    if (sums_.size() >= 2 * k_ + kSpare) Tighten();
  }
  void AddAll(const Candidates& other) {
    sums_.insert(sums_.end(), other.sums_.begin(), other.sums_.end());
    rows_.insert(rows_.end(), other.rows_.begin(), other.rows_.end());
  }
  // Rows that can be among the best, ascending.
  std::vector<int32_t> Take() {
    Tighten();
    std::sort(rows_.begin(), rows_.end());
    return std::move(rows_);
  }

 private:
  // Leaves what reaches a floor that k sums prove.
  void Tighten() {
    if (sums_.size() <= k_) return;
    floor_ = std::max(floor_, NearKth() - twice_error_);
    size_t kept = 0;
    for (size_t i = 0; i < sums_.size(); ++i) {
      sums_[kept] = sums_[i];
      rows_[kept] = rows_[i];
      kept += sums_[i] < floor_ ? 0 : 1;
    }
    sums_.resize(kept);
    rows_.resize(kept);
  }

  // A value that k sums reach, and not many more: halving and counting, which has no branches to
  // guess, is several times as fast as selecting.
  float NearKth() const {
    const auto [least, most] = std::minmax_element(sums_.begin(), sums_.end());
    float reached = *least;
    float above = *most;
    const size_t enough = k_ + k_ / 16;
    constexpr int kSteps = 20;
    for (int step = 0; step < kSteps; ++step) {
      const float middle = reached + (above - reached) / 2;
      uint32_t count = 0;
      for (const float sum : sums_) count += sum >= middle ? 1 : 0;
      if (count < k_) {
        above = middle;
        continue;
      }
      reached = middle;
      if (count <= enough) break;
    }
    return reached;
  }

  size_t k_;
  const ItemFilter* filter_;
  float twice_error_;
  float floor_;
  std::vector<float> sums_;
  std::vector<int32_t> rows_;  // of the sums
};

// The levels' rows, as kernels take them, from the first item on.
template <class T>
std::vector<LevelBlock<T>> LevelsOf(const LevelVectors& vectors,
                                    const std::vector<std::span<const T>>& values) {
  std::vector<LevelBlock<T>> levels;
  for (size_t level = 0; level < values.size(); ++level) {
    const int64_t width = vectors.sizes.width(static_cast<int>(level));
    levels.push_back(
        {values[level].data() + width, vectors.sizes.begin(static_cast<int>(level)), width});
  }
  return levels;
}

// One query's sums for `count` items from row `begin`.
template <class T>
void ScanOne(std::span<const LevelBlock<T>> blocks, std::span<const float> query, int64_t begin,
             int64_t count, Candidates& candidates) {
  std::vector<LevelRows<T>> parts;
  for (const LevelBlock<T>& block : blocks) {
    parts.push_back({query.data() + block.begin, block.rows, block.width});
  }
  float sums[kBlock];
  FloatDots(parts, count, sums);
  int32_t selected[kBlock + 64];
  const int64_t found =
      SelectNotBelow(sums, count, candidates.floor(), static_cast<int32_t>(begin), selected);
  for (int64_t i = 0; i < found; ++i) candidates.Add(sums[selected[i] - begin], selected[i]);
}

// What one thread needs for a block of items.
struct Workspace {
  explicit Workspace(size_t queries)
      : hits(std::make_unique_for_overwrite<ProductHit[]>(static_cast<size_t>(kBlock) * queries)) {}
  std::vector<float> floors;
  std::unique_ptr<ProductHit[]> hits;  // few of them are ever written
};

template <class T>
void ScanMany(std::span<const LevelBlock<T>> blocks, const QueryPanel& panel, int64_t begin,
              int64_t count, Workspace& work, std::span<Candidates> candidates) {
  work.floors.clear();
  for (const Candidates& of_query : candidates) work.floors.push_back(of_query.floor());
  const int64_t found = FloatProducts<T>(blocks, panel, work.floors, count, work.hits.get());
  for (const ProductHit& hit : std::span(work.hits.get(), static_cast<size_t>(found))) {
    candidates[static_cast<size_t>(hit.query)].Add(hit.sum, static_cast<int32_t>(begin + hit.row));
  }
}

// Items from row `begin` to `end`; `levels` are of all items.
template <class T>
void ScanRows(std::span<const LevelBlock<T>> levels, const QueryPanel& panel,
              std::span<const float> first_query, int64_t begin, int64_t end,
              std::span<Candidates> candidates) {
  Workspace work(candidates.size());
  std::vector<LevelBlock<T>> blocks(levels.begin(), levels.end());
  int64_t next = kFirstBlock;
  while (begin < end) {
    const int64_t count = std::min(next, end - begin);
    for (size_t level = 0; level < levels.size(); ++level) {
      blocks[level].rows = levels[level].rows + begin * levels[level].width;
    }
    if (candidates.size() == 1) {
      ScanOne<T>(blocks, first_query, begin, count, candidates[0]);
    } else {
      ScanMany<T>(blocks, panel, begin, count, work, candidates);
    }
    begin += count;
    next = std::min(kBlock, 2 * next);
  }
}

// All items, by OpenMP's threads where there are many. Adds to the candidates of each query.
template <class T>
void ScanAll(std::span<const LevelBlock<T>> levels, int64_t items,
             std::span<const std::span<const float>> queries, std::vector<Candidates>& candidates) {
  const QueryPanel panel(queries);
  const int threads =
      items >= kItemsWorthThreads && omp_in_parallel() == 0 ? omp_get_max_threads() : 1;
  std::vector<std::vector<Candidates>> by_thread(static_cast<size_t>(threads), candidates);
  FirstException first;
#pragma omp parallel num_threads(threads) if (threads > 1)
  first.Guard([&] {
    const int64_t all = omp_get_num_threads();
    const int64_t me = omp_get_thread_num();
    ScanRows<T>(levels, panel, queries[0], me * items / all, (me + 1) * items / all,
                by_thread[static_cast<size_t>(me)]);
  });
  first.Rethrow();
  for (size_t q = 0; q < queries.size(); ++q) {
    for (const std::vector<Candidates>& own : by_thread) candidates[q].AddAll(own[q]);
  }
}

// Canonical scores of what can be among the best.
void ScoreAll(std::span<const NestedCodesRequest* const> requests,
              std::vector<Candidates>& candidates, std::span<TopItems* const> best,
              std::span<int64_t> scored) {
  constexpr size_t kAtOnce = 256;
  double sums[kAtOnce];
  float scores[kAtOnce];
  for (size_t q = 0; q < requests.size(); ++q) {
    const std::vector<int32_t> rows = candidates[q].Take();
    for (size_t from = 0; from < rows.size(); from += kAtOnce) {
      const auto some = std::span(rows).subspan(from, std::min(kAtOnce, rows.size() - from));
      requests[q]->codes->ScoresAt(requests[q]->query, some, sums, scores);
      for (size_t i = 0; i < some.size(); ++i) best[q]->Offer(some[i] + 1, scores[i]);
    }
    scored[q] = static_cast<int64_t>(rows.size());
  }
}

}  // namespace

bool FloatScanHolds(const NestedCodes& codes, std::span<const float> query) {
  return NormOf(query) * codes.largest_norm() < kLargestProduct;
}

void FloatScan(std::span<const NestedCodesRequest* const> requests, std::span<TopItems* const> best,
               std::span<int64_t> scored) {
  const LevelVectors& vectors = requests[0]->codes->vectors();
  std::vector<std::span<const float>> queries;
  std::vector<Candidates> candidates;
  for (const NestedCodesRequest* request : requests) {
    queries.push_back(request->query);
    candidates.emplace_back(*request, ErrorOf(*request->codes, request->query), 0.0);
  }
  if (vectors.half()) {
    ScanAll<Half>(LevelsOf(vectors, vectors.halves), vectors.items(), queries, candidates);
  } else {
    ScanAll<float>(LevelsOf(vectors, vectors.levels), vectors.items(), queries, candidates);
  }
  ScoreAll(requests, candidates, best, scored);
}

void FloatScan(const ReducedView& view, std::span<const NestedCodesRequest* const> requests,
               std::span<TopItems* const> best, std::span<int64_t> scored) {
  std::vector<std::span<const float>> queries;
  for (const NestedCodesRequest* request : requests) queries.push_back(request->query);
  const std::vector<ReducedView::Query> projected = view.Project(queries);
  std::vector<std::span<const float>> weights;
  std::vector<Candidates> candidates;
  for (size_t q = 0; q < requests.size(); ++q) {
    weights.emplace_back(projected[q].weights);
    candidates.emplace_back(*requests[q], FloatAbove(projected[q].error), projected[q].offset);
  }
  const LevelBlock<float> rows = {view.rows(), 0, view.columns()};
  ScanAll<float>(std::span(&rows, 1), view.items(), weights, candidates);
  ScoreAll(requests, candidates, best, scored);
}

}  // namespace nestrec
