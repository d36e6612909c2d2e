// Finds how many calls a second a server can answer well: the offered rate is raised until the
// goodput no longer follows it, then narrowed down between the last rate that was sustained and the
// first that was not.
//
// Pure function of what it measures.
#pragma once

#include <functional>
#include <vector>

#include "absl/status/statusor.h"

namespace nestrec {

struct SaturationOptions {
  double first_rate = 100;  // calls per second
  double highest_rate = 1e6;
  double growth = 1.5;      // from rate to rate, until one is not sustained; > 1
  double precision = 1.05;  // the two rates end at most this factor apart; > 1
  double share = 0.97;      // goodput of a sustained rate, as a share of it
};

struct Saturation {
  // The highest rate that was sustained; 0 where not even the first one was, or a lower one.
  double sustained_rate = 0;
  // The best goodput of all rates.
  double peak_goodput = 0;
  // False where the highest rate was sustained too, so that more may be.
  bool reached = false;
};

// `goodput_at` offers a rate and returns the goodput. A rate that is not sustained is offered once
// more before it counts as such, since one disturbance of the machine would end the search far
// below what the server can do. Where the first rate is not sustained, lower ones are tried, down
// to a 64th of it. Errors are those of `goodput_at`.
absl::StatusOr<Saturation> FindSaturation(
    const SaturationOptions& options,
    const std::function<absl::StatusOr<double>(double rate)>& goodput_at);

}  // namespace nestrec
