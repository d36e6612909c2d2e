// What a narrow width costs in quality, measured on live requests: a sample of the answers is made
// again at the widest width that is loaded, and compared with it.
//
// With S the items that were served, in their order, W those of the widest width for the same k,
// and r(i) the rank of item i in W, from 1:
//   overlap = |S and W| / |W|
//   NDCG    = sum over places p of S of g(S_p) / log2(1 + p), by the same of W itself,
//             where g(i) = |W| + 1 - r(i) for items of W and 0 for others
// so overlap asks which items came, and NDCG (Jarvelin and Kekalainen 2002, with W's order as the
// grades) in which order as well. Left out are answers of which W is empty, and requests with a
// min_score, whose scale is another one at each width. An exact answer at the widest width is its
// own W: it counts 1 without work.
//
// A model under trial that answers nobody (a shadow, docs/models.md) is measured in the same way:
// what it would have answered, at the width that was served, against what was. Items are matched by
// their ids, since each model has numbers of its own. Requests with a filter or with caps, which
// are about one catalogue's fields, are left out.
//
// One thread of low priority does the work, from a bounded queue, and only while the server has
// room: it must never be what makes a server slow. What it has no time for is counted and left out,
// so the figures are of calm times.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "server/metrics.h"
#include "server/mutex.h"
#include "server/recommend_engine.h"

namespace nestrec {

struct QualitySample {
  double overlap = 0;
  double ndcg = 0;
};

// REQUIRES: `widest` is not empty; no item twice in either.
QualitySample CompareWithWidest(std::span<const int32_t> served, std::span<const int32_t> widest);

// The items for the query at the snapshot's widest width, best first, by exact search. The query's
// session, where it has a user, was read. `known` is the view that the query's numbers are of,
// `searched` the one that may come back.
absl::StatusOr<std::vector<int32_t>> WidestItems(const Snapshot& snapshot, const ItemView& known,
                                                 const ItemView& searched,
                                                 const RecommendQuery& query);

// The items that `shadow` would have answered at `dim`, in the numbers of `known`, a view of
// `answered`'s items, and 0 for items that it does not hold; best first, by exact search.
// kFailedPrecondition where the two cannot be compared: a filter, caps, or a size that the shadow
// does not have.
absl::StatusOr<std::vector<int32_t>> ShadowItems(const Snapshot& shadow, const Snapshot& answered,
                                                 const ItemView& known, const RecommendQuery& query,
                                                 int dim);

class QualityMonitor final : public EngineObserver {
 public:
  struct Options {
    double share = 0.01;    // of the answers; REQUIRES: 0 to 1
    size_t max_queue = 64;  // REQUIRES: >= 1
    // The model to compare an answer of this one with; null: none. Draws its own share.
    std::function<std::shared_ptr<const Snapshot>(const Snapshot& answered)> shadow_for =
        [](const Snapshot&) { return nullptr; };
    // Whether the server has more to do than time: nothing is sampled then. Called on the workers'
    // threads and on this object's own.
    std::function<bool()> overloaded = [] { return false; };
  };

  // `metrics` outlives this object.
  QualityMonitor(Metrics& metrics, Options options);
  // Leaves out what waits.
  ~QualityMonitor() override;

  void Served(const RecommendCall& call, const RecommendCall::Answered& answered) override;
  // Returns when all that was sampled before is measured or left out.
  void Flush();

 private:
  // An answer and what it takes to make it again.
  struct Sample {
    std::shared_ptr<const Snapshot> snapshot;
    std::shared_ptr<const ItemView> known, searched;
    std::shared_ptr<const Snapshot> shadow;  // null: the widest width is asked
    RecommendQuery query;
    std::string tier;
    int dim = 0;
    std::vector<int32_t> items;
  };
  using Width = std::pair<std::string, int>;  // tier, dim

  // Histograms and the counts of what became of the samples.
  struct Figures {
    // `of`: whose items are the measure, for the texts.
    Figures(Metrics& metrics, const std::string& name, const std::string& of);
    MetricMap<Width, MetricHistogram> overlap, ndcg;
    const MetricCounter measured, behind, overloaded, failed;
  };

  void Work();
  void Queue(Sample sample);
  void Measure(const Sample& sample);
  Figures& figures(const Sample& sample) { return sample.shadow == nullptr ? quality_ : shadow_; }
  static void Observe(Figures& figures, const Width& width, const QualitySample& sample);

  const Options options_;
  Figures quality_, shadow_;
  std::atomic<uint64_t> answers_{0};  // any order will do

  Mutex mutex_;
  ConditionVariable changed_;
  std::deque<Sample> queue_ ABSL_GUARDED_BY(mutex_);
  bool working_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace nestrec
