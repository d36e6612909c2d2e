// When the calls of a load test are due. The times are fixed before the test and do not wait for
// answers: an open loop, as users are, whose number does not shrink because the server is slow.
//
// Pure functions.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "base/random.h"

namespace nestrec {

enum class Arrivals {
  kConstant,  // one every 1/rate seconds
  kPoisson,   // independent of each other: gaps are exponential, with a mean of 1/rate
};

// Times since the test's start, ascending, each below `duration`. REQUIRES: rate (calls per second)
// > 0, duration >= 0, and room in memory for rate * duration times of 8 bytes.
std::vector<std::chrono::nanoseconds> ScheduleArrivals(Arrivals arrivals, double rate,
                                                       absl::Duration duration, Random& random);

}  // namespace nestrec
