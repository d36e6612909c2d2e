// What bench programs measure with.
//
// Thread safety: pure, but for the clock.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace nestrec {

// The upper one of the middle two, where there are two. REQUIRES: !values.empty().
inline double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

// How long `work`, which returns a Status, takes; its error when it fails.
template <typename Work>
absl::StatusOr<double> Microseconds(Work&& work) {
  const auto start = std::chrono::steady_clock::now();
  if (absl::Status status = std::forward<Work>(work)(); !status.ok()) return status;
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
      .count();
}

}  // namespace nestrec
