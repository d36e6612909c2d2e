#include "index/score.h"

#include <algorithm>
#include <cstddef>
#include <limits>

namespace nestrec {

double Dot(std::span<const float> a, std::span<const float> b) {
  constexpr size_t kLanes = 8;
  double lanes[kLanes] = {};
  const size_t whole = a.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += static_cast<double>(a[i + lane]) * static_cast<double>(b[i + lane]);
    }
  }
  for (size_t i = whole; i < a.size(); ++i) {
    lanes[i - whole] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

float ScoreFromSum(double sum) {
  constexpr double kLargest = std::numeric_limits<float>::max();
  // Converting a double outside float's range is undefined, hence the clamp before it.
  return static_cast<float>(std::clamp(sum, -kLargest, kLargest)) + 0.0f;
}

float CanonicalScore(std::span<const float> query, const LevelVectors& items, int levels,
                     int64_t row) {
  double sum = 0;
  if (items.half()) {
    LevelDots(query, items, levels, row, 1, &sum);
    return ScoreFromSum(sum);
  }
  for (int level = 0; level < levels; ++level) {
    const size_t begin = static_cast<size_t>(items.sizes.begin(level));
    const size_t width = static_cast<size_t>(items.sizes.width(level));
    sum += Dot(query.subspan(begin, width), items.row(level, row));
  }
  return ScoreFromSum(sum);
}

float CanonicalScore(std::span<const float> query, std::span<const float> vector,
                     const NestedSizes& sizes, int levels) {
  double sum = 0;
  for (int level = 0; level < levels; ++level) {
    const size_t begin = static_cast<size_t>(sizes.begin(level));
    const size_t width = static_cast<size_t>(sizes.width(level));
    sum += Dot(query.subspan(begin, width), vector.subspan(begin, width));
  }
  return ScoreFromSum(sum);
}

}  // namespace nestrec
