// What a stream of durations looks like now: a histogram over a logarithmic scale in which every
// new value makes the older ones count a little less.
//
//   QuantileSketch sketch;
//   sketch.Add(absl::Milliseconds(3));
//   sketch.Quantile(0.95);
//
// A quantile is at most kRelativeError away from that of the values as weighted, for values between
// kSmallest and kLargest; others count as the nearer of the two. After kHalfLife values an older
// one counts half.
//
// Memory: about 900 bytes, whatever was added. A value; not thread-safe.
#pragma once

#include <array>

#include "absl/time/time.h"

namespace nestrec {

class QuantileSketch {
 public:
  static constexpr double kRelativeError = 0.095;
  static constexpr int kHalfLife = 256;
  static constexpr absl::Duration kSmallest = absl::Microseconds(1);
  static constexpr absl::Duration kLargest = absl::Seconds(67);

  void Add(absl::Duration value);
  // What the values count together: their number at first, never more than 370.
  double weight() const { return total_ / newest_weight_; }
  // REQUIRES: 0 <= quantile <= 1, weight() > 0.
  absl::Duration Quantile(double quantile) const;

 private:
  static constexpr int kPerOctave = 8;
  static constexpr int kOctaves = 26;  // 2^26 us are 67 s

  std::array<float, kOctaves* kPerOctave + 1> buckets_ = {};
  double total_ = 0;
  double newest_weight_ = 1;  // grows, instead of all buckets shrinking at every value
};

}  // namespace nestrec
