// The metrics of a server, and their text as Prometheus reads it.
//
//   Metrics metrics;
//   MetricCounter shed = metrics.Counter("nestrec_shed_total", "Requests turned away.",
//                                        {{"reason", "full"}});
//   shed.Add();
//   auto queue = metrics.Collect([&](MetricWriter& writer) {
//     writer.Gauge("nestrec_queue_length", "Requests that wait.", engine.queue_length());
//   });
//   metrics.Text();
//
// Two ways: what is counted as it happens gets a counter or a histogram; what somebody knows anyway
// is collected when the text is made. A name has one help text and one kind. Labels must have few
// values: never ids of users, items or requests.
//
// Thread safety: all methods may be called from any thread. Counter and Histogram take locks and
// memory: ask once and keep the answer, or use MetricMap. Add and Observe take tens of nanoseconds.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/mutex.h"

namespace prometheus {
class Counter;
class Histogram;
}  // namespace prometheus

namespace nestrec {

using MetricLabels = std::map<std::string, std::string>;

// Handles: copied by value, valid as long as their Metrics.
class MetricCounter {
 public:
  MetricCounter() = default;
  // REQUIRES: by >= 0, and made by Metrics.
  void Add(double by = 1) const;

 private:
  friend class Metrics;
  explicit MetricCounter(prometheus::Counter* counter) : counter_(counter) {}
  prometheus::Counter* counter_ = nullptr;
};

class MetricHistogram {
 public:
  MetricHistogram() = default;
  // REQUIRES: made by Metrics.
  void Observe(double value) const;

 private:
  friend class Metrics;
  explicit MetricHistogram(prometheus::Histogram* histogram) : histogram_(histogram) {}
  prometheus::Histogram* histogram_ = nullptr;
};

// Where a collector writes what it knows.
class MetricWriter {
 public:
  virtual ~MetricWriter() = default;
  virtual void Gauge(const std::string& name, const std::string& help, double value,
                     const MetricLabels& labels = {}) = 0;
  // `value` never falls while the process runs.
  virtual void Counter(const std::string& name, const std::string& help, double value,
                       const MetricLabels& labels = {}) = 0;
};

class Metrics {
 public:
  // Upper ends, rising.
  using Buckets = std::vector<double>;
  // Seconds: 50 microseconds to 10 seconds, two to three a decade.
  static const Buckets& TimeBuckets();

  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // The same one for the same name and labels. REQUIRES: the name has no other kind.
  MetricCounter Counter(const std::string& name, const std::string& help,
                        const MetricLabels& labels = {});
  MetricHistogram Histogram(const std::string& name, const std::string& help,
                            const MetricLabels& labels, const Buckets& buckets);

  // Called for every text until the registration goes, whose end waits for a text at work. The
  // collector must not call this object.
  class Registration;
  using Collector = std::function<void(MetricWriter&)>;
  [[nodiscard]] std::unique_ptr<Registration> Collect(Collector collector);

  // Prometheus' text format 0.0.4, by name.
  std::string Text() const;

 private:
  struct State;
  const std::shared_ptr<State> state_;  // registrations may outlive this object
};

class Metrics::Registration {
 public:
  ~Registration();
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;

 private:
  friend class Metrics;
  Registration(std::shared_ptr<State> state, size_t number)
      : state_(std::move(state)), number_(number) {}
  const std::shared_ptr<State> state_;
  const size_t number_;
};

// Metrics of one name by a key, each made when its key first comes.
//
//   MetricMap<int, MetricCounter> by_dim([&](const int& dim) {
//     return metrics.Counter("served_total", "...", {{"dim", absl::StrCat(dim)}});
//   });
//   by_dim.At(64).Add();
template <typename Key, typename Metric>
class MetricMap {
 public:
  explicit MetricMap(std::function<Metric(const Key&)> make) : make_(std::move(make)) {}

  Metric At(const Key& key) {
    const MutexLock lock(mutex_);
    const auto found = metrics_.find(key);
    return found != metrics_.end() ? found->second
                                   : metrics_.emplace(key, make_(key)).first->second;
  }

 private:
  const std::function<Metric(const Key&)> make_;
  Mutex mutex_;
  absl::flat_hash_map<Key, Metric> metrics_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nestrec
