// How many calls took how long, on a scale of which every octave has 128 equal parts, so that the
// tail is known as exactly as the middle and memory does not grow with the calls.
//
//   LatencyHistogram histogram;
//   histogram.Add(absl::Microseconds(420));
//   histogram.Quantile(0.999);
//
// Durations are kept in nanoseconds up to kLargest; longer ones count as kLargest, negative ones as
// 0. The layout is that of HdrHistogram (hdrhistogram.org) with 7 bits of precision.
//
// Memory: 35 KB. A value; not thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"

namespace nestrec {

class LatencyHistogram {
 public:
  static constexpr double kRelativeError = 1.0 / 128;
  static constexpr absl::Duration kLargest = absl::Nanoseconds((int64_t{1} << 41) - 1);  // 36 min

  LatencyHistogram();

  void Add(absl::Duration value);
  void Merge(const LatencyHistogram& other);

  int64_t count() const { return count_; }
  absl::Duration max() const { return absl::Nanoseconds(max_); }
  absl::Duration mean() const;  // 0 when empty
  // The least value that at least this share of the values does not exceed, rounded up by at most
  // kRelativeError; 0 when empty. REQUIRES: 0 <= share <= 1.
  absl::Duration Quantile(double share) const;
  // How many values are at most `limit`; those in the same part as it count as such.
  int64_t CountUpTo(absl::Duration limit) const;

 private:
  std::vector<int64_t> parts_;
  int64_t count_ = 0;
  int64_t max_ = 0;  // ns
  double sum_ = 0;   // ns
};

}  // namespace nestrec
