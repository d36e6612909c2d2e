#include "server/quality_monitor.h"

#include <omp.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "server/recommender.h"
#include "server/sampling.h"

namespace nestrec {
namespace {

// Requests go first; but a thread that hardly ever runs would hold the locks that it has for long.
constexpr int kNice = 10;

const Metrics::Buckets& ShareBuckets() {
  static const Metrics::Buckets* const buckets =
      new Metrics::Buckets{0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1};
  return *buckets;
}

MetricLabels LabelsOf(const std::pair<std::string, int>& width) {
  return {{"tier", width.first}, {"dim", absl::StrCat(width.second)}};
}

std::vector<int32_t> NumbersOf(const SearchResult& result) {
  std::vector<int32_t> items;
  items.reserve(result.items.size());
  for (const ScoredItem& item : result.items) items.push_back(item.item);
  return items;
}

}  // namespace

QualitySample CompareWithWidest(std::span<const int32_t> served, std::span<const int32_t> widest) {
  absl::flat_hash_map<int32_t, double> gains;
  double ideal = 0;
  const auto discount = [](size_t place) { return std::log2(2.0 + static_cast<double>(place)); };
  for (size_t place = 0; place < widest.size(); ++place) {
    const auto gain = static_cast<double>(widest.size() - place);
    gains[widest[place]] = gain;
    ideal += gain / discount(place);
  }
  double shared = 0;
  double sum = 0;
  for (size_t place = 0; place < served.size(); ++place) {
    const auto found = gains.find(served[place]);
    if (found == gains.end()) continue;
    shared += 1;
    sum += found->second / discount(place);
  }
  return {.overlap = shared / static_cast<double>(widest.size()), .ndcg = sum / ideal};
}

absl::StatusOr<std::vector<int32_t>> WidestItems(const Snapshot& snapshot,
                                                 const RecommendQuery& query) {
  const int levels = snapshot.sizes().levels();
  const int dim = snapshot.sizes().end(levels - 1);
  std::vector<int32_t> items = query.history;
  if (query.session.has_value()) {
    const SessionQuery session{.history = &*query.session, .more = query.history, .levels = levels};
    items = SessionManager::ItemsOf(session, snapshot.encoder().max_len());
  }
  std::vector<float> z(static_cast<size_t>(dim));
  const History history(items);
  NESTREC_RETURN_IF_ERROR(snapshot.encoder().Encode({&history, 1}, levels, z));
  NESTREC_ASSIGN_OR_RETURN(
      const SearchResult result,
      FindItems(snapshot, query, {.dim = dim, .levels = levels, .tier = {}, .index = {}}, z));
  return NumbersOf(result);
}

QualityMonitor::QualityMonitor(Metrics& metrics, Options options)
    : options_(std::move(options)),
      overlap_([&metrics](const Width& width) {
        return metrics.Histogram("nestrec_quality_overlap",
                                 "Share of the widest width's items that were served, of a sample "
                                 "of answers.",
                                 LabelsOf(width), ShareBuckets());
      }),
      ndcg_([&metrics](const Width& width) {
        return metrics.Histogram("nestrec_quality_ndcg",
                                 "NDCG of what was served, graded by the widest width's order.",
                                 LabelsOf(width), ShareBuckets());
      }),
      measured_(metrics.Counter("nestrec_quality_samples_total",
                                "Answers that were sampled, and what became of them.",
                                {{"result", "measured"}})),
      behind_(metrics.Counter("nestrec_quality_samples_total",
                              "Answers that were sampled, and what became of them.",
                              {{"result", "behind"}})),
      overloaded_(metrics.Counter("nestrec_quality_samples_total",
                                  "Answers that were sampled, and what became of them.",
                                  {{"result", "overloaded"}})),
      failed_(metrics.Counter("nestrec_quality_samples_total",
                              "Answers that were sampled, and what became of them.",
                              {{"result", "failed"}})) {
  thread_ = std::thread([this] { Work(); });
}

QualityMonitor::~QualityMonitor() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  thread_.join();
}

void QualityMonitor::Served(const RecommendCall& call, const RecommendCall::Answered& answered) {
  // Scores of two widths are on two scales: one bound for both compares nothing.
  if (call.query.min_score.has_value()) return;
  if (SampleOf(answers_.fetch_add(1, std::memory_order_relaxed)) >= options_.share) return;
  const Snapshot& snapshot = *call.snapshot;
  const SearchResult& result = answered.recommendation.result;
  const Width width(answered.width.tier, answered.width.dim);
  if (result.exact && answered.width.levels == snapshot.sizes().levels()) {
    if (!result.items.empty()) {
      Observe(width, {.overlap = 1, .ndcg = 1});
      measured_.Add();
    }
    return;
  }
  if (options_.overloaded()) return overloaded_.Add();
  Sample sample{.snapshot = call.snapshot,
                .query = call.query,
                .tier = width.first,
                .dim = width.second,
                .items = NumbersOf(result)};
  {
    const MutexLock lock(mutex_);
    if (queue_.size() < options_.max_queue) {
      queue_.push_back(std::move(sample));
      changed_.NotifyAll();
      return;
    }
  }
  behind_.Add();
}

void QualityMonitor::Flush() {
  const MutexLock lock(mutex_);
  while (!queue_.empty() || working_) changed_.Wait(mutex_);
}

void QualityMonitor::Work() {
  omp_set_num_threads(1);
  // Of this thread alone, on Linux. Without the right to it, it does without.
  setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), kNice);
  for (;;) {
    Sample sample;
    {
      const MutexLock lock(mutex_);
      working_ = false;
      changed_.NotifyAll();
      while (queue_.empty() && !stopping_) changed_.Wait(mutex_);
      if (stopping_) {
        queue_.clear();
        changed_.NotifyAll();
        return;
      }
      sample = std::move(queue_.front());
      queue_.pop_front();
      working_ = true;
    }
    if (options_.overloaded()) {
      overloaded_.Add();
    } else {
      Measure(sample);
    }
  }
}

void QualityMonitor::Measure(const Sample& sample) {
  const absl::StatusOr<std::vector<int32_t>> widest =
      Guard("measuring quality", [&] { return WidestItems(*sample.snapshot, sample.query); });
  if (!widest.ok()) return failed_.Add();
  if (widest->empty()) return;
  Observe({sample.tier, sample.dim}, CompareWithWidest(sample.items, *widest));
  measured_.Add();
}

void QualityMonitor::Observe(const Width& width, const QualitySample& sample) {
  overlap_.At(width).Observe(sample.overlap);
  ndcg_.At(width).Observe(sample.ndcg);
}

}  // namespace nestrec
