#include "server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/process_metrics.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Metrics, CountersAndHistogramsStandInTheText) {
  Metrics metrics;
  metrics.Counter("calls_total", "Calls.", {{"code", "OK"}}).Add(2);
  metrics.Counter("calls_total", "Calls.", {{"code", "OK"}}).Add();
  const MetricHistogram sizes = metrics.Histogram("size", "Sizes.", {}, {1, 10});
  sizes.Observe(1);
  sizes.Observe(7);
  sizes.Observe(100);
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("# TYPE calls_total counter\ncalls_total{code=\"OK\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("size_bucket{le=\"1\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("size_bucket{le=\"10\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("size_bucket{le=\"+Inf\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("size_sum 108\n"));
}

TEST(Metrics, CollectorsAreAskedEachTimeUntilTheirRegistrationGoes) {
  Metrics metrics;
  int asked = 0;
  auto registration = metrics.Collect([&](MetricWriter& writer) {
    writer.Gauge("asked", "Times.", ++asked);
    writer.Counter("by_name_total", "Two.", 5, {{"name", "a\"b"}});
    writer.Counter("by_name_total", "Two.", 6, {{"name", "c"}});
  });
  EXPECT_THAT(metrics.Text(), HasSubstr("asked 1\n"));
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("# TYPE asked gauge\nasked 2\n"));
  // One head for both, quotes escaped.
  EXPECT_THAT(text, HasSubstr("# TYPE by_name_total counter\nby_name_total{name=\"a\\\"b\"} 5\n"
                              "by_name_total{name=\"c\"} 6\n"));
  registration.reset();
  EXPECT_THAT(metrics.Text(), Not(HasSubstr("asked")));
}

TEST(Metrics, ARegistrationMayOutliveItsMetrics) {
  auto metrics = std::make_unique<Metrics>();
  auto registration = metrics->Collect([](MetricWriter&) {});
  metrics.reset();
  registration.reset();
}

TEST(Metrics, AMapMakesOneMetricForEachKeyWhateverThreadComesFirst) {
  Metrics metrics;
  MetricMap<int, MetricCounter> by_dim([&metrics](const int& dim) {
    return metrics.Counter("served_total", "Served.", {{"dim", absl::StrCat(dim)}});
  });
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int call = 0; call < 1000; ++call) by_dim.At(call % 3).Add();
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("served_total{dim=\"0\"} 1336\n"));
  EXPECT_THAT(text, HasSubstr("served_total{dim=\"2\"} 1332\n"));
}

TEST(ProcessMetrics, TellWhatThisProcessTakes) {
  struct Writer : MetricWriter {
    void Gauge(const std::string& name, const std::string&, double value,
               const MetricLabels&) override {
      values[name] = value;
    }
    void Counter(const std::string& name, const std::string&, double value,
                 const MetricLabels&) override {
      values[name] = value;
    }
    std::map<std::string, double> values;
  };
  Writer before;
  WriteProcessMetrics(before);
  EXPECT_GE(before.values["process_open_fds"], 3);
  EXPECT_GT(before.values["process_max_fds"], before.values["process_open_fds"]);
  EXPECT_GE(before.values["process_threads"], 1);
  EXPECT_GT(before.values["process_virtual_memory_bytes"],
            before.values["process_resident_memory_bytes"]);
  EXPECT_NEAR(before.values["process_start_time_seconds"], static_cast<double>(time(nullptr)), 600);
  const std::vector<char> memory(64 << 20, 'x');
  Writer after;
  WriteProcessMetrics(after);
  EXPECT_NEAR(after.values["process_resident_memory_bytes"] -
                  before.values["process_resident_memory_bytes"],
              64 << 20, 8 << 20);
  EXPECT_EQ(memory.back(), 'x');
  EXPECT_EQ(after.values["process_start_time_seconds"],
            before.values["process_start_time_seconds"]);
}

}  // namespace
}  // namespace nestrec
