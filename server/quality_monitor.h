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
// session, where it has a user, was read.
absl::StatusOr<std::vector<int32_t>> WidestItems(const Snapshot& snapshot,
                                                 const RecommendQuery& query);

class QualityMonitor final : public EngineObserver {
 public:
  struct Options {
    double share = 0.01;    // of the answers; REQUIRES: 0 to 1
    size_t max_queue = 64;  // REQUIRES: >= 1
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
    RecommendQuery query;
    std::string tier;
    int dim = 0;
    std::vector<int32_t> items;
  };
  using Width = std::pair<std::string, int>;  // tier, dim

  void Work();
  void Measure(const Sample& sample);
  void Observe(const Width& width, const QualitySample& sample);

  const Options options_;
  MetricMap<Width, MetricHistogram> overlap_;
  MetricMap<Width, MetricHistogram> ndcg_;
  const MetricCounter measured_, behind_, overloaded_, failed_;
  std::atomic<uint64_t> answers_{0};  // any order will do

  Mutex mutex_;
  ConditionVariable changed_;
  std::deque<Sample> queue_ ABSL_GUARDED_BY(mutex_);
  bool working_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace nestrec
