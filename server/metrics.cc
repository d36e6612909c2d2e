#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>

namespace nestrec {
namespace {

// Families as collectors write them, one for each name.
class FamilyWriter final : public MetricWriter {
 public:
  void Gauge(const std::string& name, const std::string& help, double value,
             const MetricLabels& labels) override {
    Add(name, help, prometheus::MetricType::Gauge, labels).gauge.value = value;
  }
  void Counter(const std::string& name, const std::string& help, double value,
               const MetricLabels& labels) override {
    Add(name, help, prometheus::MetricType::Counter, labels).counter.value = value;
  }

  void MoveTo(std::vector<prometheus::MetricFamily>& families) {
    for (auto& [name, family] : families_) families.push_back(std::move(family));
  }

 private:
  prometheus::ClientMetric& Add(const std::string& name, const std::string& help,
                                prometheus::MetricType type, const MetricLabels& labels) {
    prometheus::MetricFamily& family = families_[name];
    family.name = name;
    family.help = help;
    family.type = type;
    prometheus::ClientMetric& metric = family.metric.emplace_back();
    for (const auto& [label, text] : labels) metric.label.push_back({label, text});
    return metric;
  }

  std::map<std::string, prometheus::MetricFamily> families_;
};

}  // namespace

struct Metrics::State {
  prometheus::Registry registry;
  mutable Mutex mutex;
  size_t next ABSL_GUARDED_BY(mutex) = 0;
  std::map<size_t, Collector> collectors ABSL_GUARDED_BY(mutex);
};

void MetricCounter::Add(double by) const { counter_->Increment(by); }
void MetricHistogram::Observe(double value) const { histogram_->Observe(value); }

const Metrics::Buckets& Metrics::TimeBuckets() {
  static const Buckets* const buckets =
      new Buckets{0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02,
                  0.05,    0.1,    0.2,    0.5,    1,     2,     5,     10};
  return *buckets;
}

Metrics::Metrics() : state_(std::make_shared<State>()) {}
Metrics::~Metrics() = default;

MetricCounter Metrics::Counter(const std::string& name, const std::string& help,
                               const MetricLabels& labels) {
  auto& family = prometheus::BuildCounter().Name(name).Help(help).Register(state_->registry);
  return MetricCounter(&family.Add(labels));
}

MetricHistogram Metrics::Histogram(const std::string& name, const std::string& help,
                                   const MetricLabels& labels, const Buckets& buckets) {
  auto& family = prometheus::BuildHistogram().Name(name).Help(help).Register(state_->registry);
  return MetricHistogram(&family.Add(labels, buckets));
}

std::unique_ptr<Metrics::Registration> Metrics::Collect(Collector collector) {
  const MutexLock lock(state_->mutex);
  const size_t number = state_->next++;
  state_->collectors.emplace(number, std::move(collector));
  return std::unique_ptr<Registration>(new Registration(state_, number));
}

Metrics::Registration::~Registration() {
  const MutexLock lock(state_->mutex);
  state_->collectors.erase(number_);
}

std::string Metrics::Text() const {
  std::vector<prometheus::MetricFamily> families = state_->registry.Collect();
  {
    FamilyWriter writer;
    const MutexLock lock(state_->mutex);
    for (const auto& [number, collector] : state_->collectors) collector(writer);
    writer.MoveTo(families);
  }
  std::stable_sort(families.begin(), families.end(),
                   [](const auto& a, const auto& b) { return a.name < b.name; });
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace nestrec
