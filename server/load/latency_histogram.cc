#include "server/load/latency_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

namespace nestrec {
namespace {

// A value below 256 ns has a part of its own. From there on, a value's 8 leading bits name its
// part within the octave, and how far it was shifted to get them names the octave.
constexpr int kPrecisionBits = 7;
constexpr uint64_t kPartsOfOctave = 1 << kPrecisionBits;

uint64_t Clamped(absl::Duration value) {
  return static_cast<uint64_t>(absl::ToInt64Nanoseconds(
      std::clamp(value, absl::ZeroDuration(), LatencyHistogram::kLargest)));
}

size_t PartOf(uint64_t nanoseconds) {
  const int shift = std::max(0, static_cast<int>(std::bit_width(nanoseconds)) - 1 - kPrecisionBits);
  return static_cast<uint64_t>(shift) * kPartsOfOctave + (nanoseconds >> shift);
}

// The largest value of a part.
uint64_t EndOf(size_t part) {
  const uint64_t shift = part < 2 * kPartsOfOctave ? 0 : part / kPartsOfOctave - 1;
  return ((part - shift * kPartsOfOctave + 1) << shift) - 1;
}

}  // namespace

LatencyHistogram::LatencyHistogram() : parts_(PartOf(Clamped(kLargest)) + 1) {}

void LatencyHistogram::Add(absl::Duration value) {
  const uint64_t nanoseconds = Clamped(value);
  ++parts_[PartOf(nanoseconds)];
  ++count_;
  max_ = std::max(max_, static_cast<int64_t>(nanoseconds));
  sum_ += static_cast<double>(nanoseconds);
}

void LatencyHistogram::Merge(const LatencyHistogram& other) {
  for (size_t i = 0; i < parts_.size(); ++i) parts_[i] += other.parts_[i];
  count_ += other.count_;
  max_ = std::max(max_, other.max_);
  sum_ += other.sum_;
}

absl::Duration LatencyHistogram::mean() const {
  return count_ == 0 ? absl::ZeroDuration() : absl::Nanoseconds(sum_ / static_cast<double>(count_));
}

absl::Duration LatencyHistogram::Quantile(double share) const {
  if (count_ == 0) return absl::ZeroDuration();
  // The small part keeps 0.9 of 10 values from being rounded up to the tenth.
  const auto wanted =
      std::max<int64_t>(1, std::llround(std::ceil(share * static_cast<double>(count_) - 1e-6)));
  int64_t seen = 0;
  for (size_t part = 0; part < parts_.size(); ++part) {
    seen += parts_[part];
    if (seen >= wanted) {
      return absl::Nanoseconds(std::min(static_cast<int64_t>(EndOf(part)), max_));
    }
  }
  return max();
}

int64_t LatencyHistogram::CountUpTo(absl::Duration limit) const {
  if (limit < absl::ZeroDuration()) return 0;
  const auto end = parts_.begin() + static_cast<int64_t>(PartOf(Clamped(limit))) + 1;
  return std::accumulate(parts_.begin(), end, int64_t{0});
}

}  // namespace nestrec
