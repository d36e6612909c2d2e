#include "server/load/arrivals.h"

#include <cmath>

namespace nestrec {

std::vector<std::chrono::nanoseconds> ScheduleArrivals(Arrivals arrivals, double rate,
                                                       absl::Duration duration, Random& random) {
  const double end = absl::ToDoubleNanoseconds(duration);
  const double gap = 1e9 / rate;
  std::vector<std::chrono::nanoseconds> due;
  due.reserve(static_cast<size_t>(end / gap) + 1);
  double time = 0;
  for (int64_t call = 0;; ++call) {
    if (arrivals == Arrivals::kConstant) {
      time = static_cast<double>(call) * gap;
    } else {
      time -= gap * std::log(1.0 - random.Uniform());
    }
    if (time >= end) return due;
    due.emplace_back(static_cast<int64_t>(time));
  }
}

}  // namespace nestrec
