#include "server/quantile_sketch.h"

#include <algorithm>
#include <cmath>

namespace nestrec {
namespace {

constexpr double kHeaviest = 1e6;  // well within what a float adds one to

}  // namespace

void QuantileSketch::Add(absl::Duration value) {
  const double microseconds = absl::ToDoubleMicroseconds(std::clamp(value, kSmallest, kLargest));
  const int bucket = static_cast<int>(std::log2(microseconds) * kPerOctave);
  static const double kGrowth = std::exp2(1.0 / kHalfLife);
  newest_weight_ *= kGrowth;
  buckets_[static_cast<size_t>(std::clamp(bucket, 0, kOctaves * kPerOctave))] +=
      static_cast<float>(newest_weight_);
  total_ += newest_weight_;
  if (newest_weight_ < kHeaviest) return;
  total_ = 0;
  for (float& weight : buckets_) {
    weight /= static_cast<float>(newest_weight_);
    total_ += static_cast<double>(weight);
  }
  newest_weight_ = 1;
}

absl::Duration QuantileSketch::Quantile(double quantile) const {
  double left = quantile * total_;
  size_t last = 0;
  for (size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    const double weight = static_cast<double>(buckets_[bucket]);
    if (weight == 0) continue;
    last = bucket;
    if (left <= weight) {
      return absl::Microseconds(
          std::exp2((static_cast<double>(bucket) + left / weight) / kPerOctave));
    }
    left -= weight;
  }
  // Rounding left a little over.
  return absl::Microseconds(std::exp2(static_cast<double>(last + 1) / kPerOctave));
}

}  // namespace nestrec
