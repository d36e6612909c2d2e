#include "server/load/latency_histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/random.h"

namespace nestrec {
namespace {

TEST(LatencyHistogram, QuantilesAreThoseOfTheSortedValuesRoundedUpALittle) {
  Random random(3);
  LatencyHistogram histogram;
  std::vector<int64_t> values;  // ns
  for (int i = 0; i < 20'000; ++i) {
    values.push_back(static_cast<int64_t>(std::exp(random.Uniform(0.0, std::log(1e11)))));
    histogram.Add(absl::Nanoseconds(values.back()));
  }
  std::sort(values.begin(), values.end());
  for (const double share : {0.0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0}) {
    const auto place = static_cast<size_t>(
        std::max(1.0, std::ceil(share * static_cast<double>(values.size()) - 1e-6)));
    const auto exact = static_cast<double>(values[place - 1]);
    const double quantile = absl::ToDoubleNanoseconds(histogram.Quantile(share));
    EXPECT_GE(quantile, exact) << share;
    EXPECT_LE(quantile, exact * (1 + LatencyHistogram::kRelativeError)) << share;
  }
  EXPECT_EQ(histogram.max(), absl::Nanoseconds(values.back()));
  EXPECT_EQ(histogram.Quantile(1), histogram.max());
}

TEST(LatencyHistogram, SmallValuesAreExact) {
  LatencyHistogram histogram;
  for (int i = 1; i <= 10; ++i) histogram.Add(absl::Nanoseconds(i * 10));
  EXPECT_EQ(histogram.Quantile(0.9), absl::Nanoseconds(90));
  EXPECT_EQ(histogram.Quantile(0.91), absl::Nanoseconds(100));
  EXPECT_EQ(histogram.mean(), absl::Nanoseconds(55));
  EXPECT_EQ(histogram.CountUpTo(absl::Nanoseconds(50)), 5);
  EXPECT_EQ(histogram.CountUpTo(absl::Nanoseconds(-1)), 0);
}

TEST(LatencyHistogram, ValuesBeyondTheScaleCountAsItsEnds) {
  LatencyHistogram histogram;
  EXPECT_EQ(histogram.Quantile(0.5), absl::ZeroDuration());
  histogram.Add(absl::Seconds(-1));
  EXPECT_EQ(histogram.Quantile(1), absl::ZeroDuration());
  histogram.Add(absl::InfiniteDuration());
  EXPECT_EQ(histogram.Quantile(1), LatencyHistogram::kLargest);
  EXPECT_EQ(histogram.count(), 2);
}

TEST(LatencyHistogram, MergedHistogramsAreTheHistogramOfAll) {
  Random random(4);
  LatencyHistogram all, a, b;
  for (int i = 0; i < 1000; ++i) {
    const absl::Duration value = absl::Microseconds(random.Index(1'000'000));
    all.Add(value);
    (i % 3 == 0 ? a : b).Add(value);
  }
  a.Merge(b);
  EXPECT_EQ(a.count(), all.count());
  EXPECT_EQ(a.max(), all.max());
  for (const double share : {0.1, 0.5, 0.99}) {
    EXPECT_EQ(a.Quantile(share), all.Quantile(share));
  }
}

}  // namespace
}  // namespace nestrec
