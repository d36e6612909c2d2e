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
constexpr uint64_t kQuality = SaltOf("quality");

const Metrics::Buckets& ShareBuckets() {
  static const Metrics::Buckets* const buckets =
      new Metrics::Buckets{0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1};
  return *buckets;
}

MetricLabels LabelsOf(const std::pair<std::string, int>& width) {
  return {{"tier", width.first}, {"dim", absl::StrCat(width.second)}};
}

MetricCounter SampleCounter(Metrics& metrics, const std::string& name, const char* result) {
  return metrics.Counter(
      absl::StrCat("nestrec_", name, "_samples_total"),
      "Answers that were sampled: measured; behind: the queue was full; overloaded: the "
      "server had no time to spare; failed: also what cannot be compared.",
      {{"result", result}});
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

absl::StatusOr<std::vector<int32_t>> WidestItems(const Snapshot& snapshot, const ItemView& known,
                                                 const ItemView& searched,
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
  NESTREC_RETURN_IF_ERROR(snapshot.encoder().Encode({&history, 1}, levels, z, &known));
  NESTREC_ASSIGN_OR_RETURN(const SearchResult result,
                           FindItems(snapshot, searched, query,
                                     {.dim = dim, .levels = levels, .tier = {}, .index = {}}, z));
  return NumbersOf(result);
}

absl::StatusOr<std::vector<int32_t>> ShadowItems(const Snapshot& shadow, const Snapshot& answered,
                                                 const ItemView& known, const RecommendQuery& query,
                                                 int dim) {
  const std::shared_ptr<const ItemView> own_items = shadow.items();
  if (query.filter.has_value() || !query.caps.empty()) {
    return absl::FailedPreconditionError("the request is about one catalogue's fields");
  }
  const absl::StatusOr<int> levels = shadow.sizes().LevelsOf(dim);
  if (!levels.ok()) return absl::FailedPreconditionError(levels.status().message());
  const auto translated = [&](std::span<const int32_t> items) {
    std::vector<int32_t> numbers;
    for (const int32_t item : items) {
      if (item == 0) continue;
      const auto found = own_items->Find(known.id(item));
      if (found.has_value()) numbers.push_back(*found);
    }
    return numbers;
  };
  std::vector<int32_t> history = query.history;
  if (query.session.has_value()) {
    const SessionQuery session{
        .history = &*query.session, .more = query.history, .levels = *levels};
    history = SessionManager::ItemsOf(session, answered.encoder().max_len());
  }
  RecommendQuery own;
  own.history = translated(history);
  own.excluded = translated(query.excluded);
  if (query.only.has_value()) own.only = translated(*query.only);
  own.k = query.k;
  own.diversity = query.diversity;
  std::vector<float> z(static_cast<size_t>(dim));
  const History view(own.history);
  NESTREC_RETURN_IF_ERROR(shadow.encoder().Encode({&view, 1}, *levels, z, own_items.get()));
  NESTREC_ASSIGN_OR_RETURN(const SearchResult result,
                           FindItems(shadow, *own_items, own,
                                     {.dim = dim, .levels = *levels, .tier = {}, .index = {}}, z));
  std::vector<int32_t> items;
  for (const ScoredItem& item : result.items) {
    items.push_back(known.Find(own_items->id(item.item)).value_or(0));
  }
  return items;
}

QualityMonitor::Figures::Figures(Metrics& metrics, const std::string& name, const std::string& of)
    : overlap([&metrics, name, of](const Width& width) {
        return metrics.Histogram(
            absl::StrCat("nestrec_", name, "_overlap"),
            absl::StrCat("Share of ", of, " items that were served, of a sample of answers."),
            LabelsOf(width), ShareBuckets());
      }),
      ndcg([&metrics, name, of](const Width& width) {
        return metrics.Histogram(absl::StrCat("nestrec_", name, "_ndcg"),
                                 absl::StrCat("NDCG of what was served, graded by ", of, " order."),
                                 LabelsOf(width), ShareBuckets());
      }),
      measured(SampleCounter(metrics, name, "measured")),
      behind(SampleCounter(metrics, name, "behind")),
      overloaded(SampleCounter(metrics, name, "overloaded")),
      failed(SampleCounter(metrics, name, "failed")) {}

QualityMonitor::QualityMonitor(Metrics& metrics, Options options)
    : options_(std::move(options)),
      quality_(metrics, "quality", "the widest width's"),
      shadow_(metrics, "shadow", "the shadow model's") {
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
  // Likeness is not what another width or model is the measure of.
  if (call.query.similar_to.has_value()) return;
  // What the vector will find is not known here.
  if (call.query.vector_only) return;
  const SearchResult& result = answered.recommendation.result;
  Sample sample{.snapshot = call.snapshot,
                .known = call.items,
                .searched = answered.recommendation.items,
                .shadow = options_.shadow_for(*call.snapshot),
                .query = {},
                .tier = answered.width.tier,
                .dim = answered.width.dim,
                .items = {}};
  const auto queue = [&] {
    sample.query = call.query;
    sample.items = NumbersOf(result);
    Queue(sample);
  };
  if (sample.shadow != nullptr) queue();
  if (SampleOf(kQuality, answers_.fetch_add(1, std::memory_order_relaxed)) >= options_.share)
    return;
  sample.shadow = nullptr;
  if (!result.exact || answered.width.levels != call.snapshot->sizes().levels()) return queue();
  if (!result.items.empty()) {
    Observe(quality_, {sample.tier, sample.dim}, {.overlap = 1, .ndcg = 1});
    quality_.measured.Add();
  }
}

void QualityMonitor::Queue(Sample sample) {
  const Figures& counts = figures(sample);
  if (options_.overloaded()) return counts.overloaded.Add();
  {
    const MutexLock lock(mutex_);
    if (queue_.size() < options_.max_queue) {
      queue_.push_back(std::move(sample));
      changed_.NotifyAll();
      return;
    }
  }
  counts.behind.Add();
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
      figures(sample).overloaded.Add();
    } else {
      Measure(sample);
    }
  }
}

void QualityMonitor::Measure(const Sample& sample) {
  Figures& counts = figures(sample);
  const absl::StatusOr<std::vector<int32_t>> measure =
      Guard("measuring quality", [&]() -> absl::StatusOr<std::vector<int32_t>> {
        return sample.shadow == nullptr
                   ? WidestItems(*sample.snapshot, *sample.known, *sample.searched, sample.query)
                   : ShadowItems(*sample.shadow, *sample.snapshot, *sample.known, sample.query,
                                 sample.dim);
      });
  if (!measure.ok()) return counts.failed.Add();
  if (measure->empty()) return;
  Observe(counts, {sample.tier, sample.dim}, CompareWithWidest(sample.items, *measure));
  counts.measured.Add();
}

void QualityMonitor::Observe(Figures& figures, const Width& width, const QualitySample& sample) {
  figures.overlap.At(width).Observe(sample.overlap);
  figures.ndcg.At(width).Observe(sample.ndcg);
}

}  // namespace nestrec
