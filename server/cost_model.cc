#include "server/cost_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <utility>

namespace nestrec {
namespace {

// What is done beside the multiplications keeps narrow and small work from being free.
constexpr double kLeastShare = 1.0 / 8;
// What a neighbour has seen more of than a width itself, counts this much.
constexpr double kNeighbourShare = 1.0 / 16;
// A neighbour with less than this share of the best one's evidence is passed over.
constexpr double kStaleShare = 1.0 / 8;

double Scaled(double time, double ratio) { return time * std::max(ratio, kLeastShare); }

}  // namespace

CostModel::CostModel(const NestedSizes& sizes, Clock clock)
    : sizes_(sizes), clock_(std::move(clock)) {
  double work = 0;
  for (int level = 0; level < sizes_.levels(); ++level) {
    work += static_cast<double>(sizes_.width(level)) * sizes_.end(level);
    encode_work_.push_back(work);
  }
}

int CostModel::RowClassOf(int64_t rows) {
  return std::min(static_cast<int>(std::bit_width(static_cast<uint64_t>(rows))) - 1,
                  kMaxRowClasses - 1);
}

double CostModel::Work(Stage stage, size_t level) const {
  switch (stage) {
    case Stage::kEncode:
      return encode_work_[level];
    case Stage::kSearch:
    case Stage::kSimilar:
      return sizes_.end(static_cast<int>(level));
    case Stage::kOther:
      break;
  }
  return 1;
}

void CostModel::Record(Stage stage, int levels, int64_t rows, absl::Duration took) {
  const Instant now = clock_();
  const MutexLock lock(mutex_);
  RowClass& cells = cells_[static_cast<size_t>(stage)][static_cast<size_t>(RowClassOf(rows))];
  cells.resize(static_cast<size_t>(sizes_.levels()));
  std::unique_ptr<Cell>& cell = cells[static_cast<size_t>(levels) - 1];
  if (cell == nullptr) cell = std::make_unique<Cell>();
  cell->sketch.Add(took);
  cell->newest = now;
}

std::optional<absl::Duration> CostModel::Predict(Stage stage, int levels, int64_t rows,
                                                 double quantile) const {
  const std::vector<absl::Duration> all = PredictLevels(stage, rows, quantile);
  if (all.empty()) return std::nullopt;
  return all[static_cast<size_t>(levels) - 1];
}

std::vector<absl::Duration> CostModel::PredictLevels(Stage stage, int64_t rows,
                                                     double quantile) const {
  const Instant now = clock_();
  const int wanted = RowClassOf(rows);
  int found = -1;
  std::vector<Estimate> own;
  {
    const MutexLock lock(mutex_);
    const auto& classes = cells_[static_cast<size_t>(stage)];
    for (int i = 0; i < kMaxRowClasses; ++i) {
      // The larger of two that are as near: scaling down errs on the side of caution.
      if (!classes[static_cast<size_t>(i)].empty() &&
          (found < 0 || std::abs(i - wanted) <= std::abs(found - wanted))) {
        found = i;
      }
    }
    if (found < 0) return {};
    own = Own(classes[static_cast<size_t>(found)], quantile, now);
  }
  const std::vector<Estimate> estimates = WithNeighbours(stage, own);

  // The nearest sequence that never falls: runs that do are replaced by their mean.
  struct Run {
    double sum, weight;
    int count;
  };
  std::vector<Run> runs;
  for (const Estimate& estimate : estimates) {
    runs.push_back({estimate.microseconds * estimate.evidence, estimate.evidence, 1});
    while (runs.size() > 1) {
      const Run& last = runs.back();
      Run& before = runs[runs.size() - 2];
      if (before.sum * last.weight <= last.sum * before.weight) break;
      before = {before.sum + last.sum, before.weight + last.weight, before.count + last.count};
      runs.pop_back();
    }
  }
  const double factor = Scaled(1, std::exp2(wanted - found));
  std::vector<absl::Duration> durations;
  for (const Run& run : runs) {
    durations.insert(durations.end(), static_cast<size_t>(run.count),
                     absl::Microseconds(run.sum / run.weight * factor));
  }
  return durations;
}

std::vector<CostModel::Estimate> CostModel::Own(const RowClass& cells, double quantile,
                                                Instant now) const {
  std::vector<Estimate> own(cells.size());
  for (size_t level = 0; level < cells.size(); ++level) {
    const Cell* cell = cells[level].get();
    if (cell == nullptr) continue;
    const double age = absl::FDivDuration(Between(cell->newest, now), kFreshFor);
    // Never 0, however old: it is all there is, where nothing was seen since.
    const double freshness = std::exp2(-std::clamp(age, 0.0, 100.0));
    own[level] = {absl::ToDoubleMicroseconds(cell->sketch.Quantile(quantile)),
                  cell->sketch.weight() * freshness};
  }
  return own;
}

std::vector<CostModel::Estimate> CostModel::WithNeighbours(Stage stage,
                                                           const std::vector<Estimate>& own) const {
  std::vector<Estimate> estimates = own;
  for (size_t level = 0; level < own.size(); ++level) {
    double best = 0;
    for (size_t other = 0; other < own.size(); ++other) {
      if (other != level) best = std::max(best, own[other].evidence);
    }
    if (best == 0) continue;
    const size_t none = own.size();
    size_t below = none;
    size_t above = none;
    for (size_t other = 0; other < own.size(); ++other) {
      if (other == level || own[other].evidence < kStaleShare * best) continue;
      if (other < level) below = other;
      if (other > level && above == none) above = other;
    }
    const double work = Work(stage, level);
    Estimate beside;
    if (below != none && above != none) {
      const double span = Work(stage, above) - Work(stage, below);
      const double share = span > 0 ? (work - Work(stage, below)) / span : 0.5;
      beside.microseconds = (1 - share) * own[below].microseconds + share * own[above].microseconds;
      beside.evidence = std::min(own[below].evidence, own[above].evidence);
    } else {
      const size_t other = below != none ? below : above;
      beside.microseconds = Scaled(own[other].microseconds, work / Work(stage, other));
      beside.evidence = own[other].evidence;
    }
    beside.evidence = kNeighbourShare * std::max(0.0, beside.evidence - own[level].evidence);
    const double evidence = own[level].evidence + beside.evidence;
    estimates[level] = {
        (own[level].microseconds * own[level].evidence + beside.microseconds * beside.evidence) /
            evidence,
        evidence};
  }
  return estimates;
}

}  // namespace nestrec
