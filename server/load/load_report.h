// What a load test saw.
//
// Values; not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/load/latency_histogram.h"

namespace nestrec {

struct LoadReport {
  struct Errors {
    int64_t count = 0;
    std::string example;  // the first one's message
  };

  // An answer, `latency` after it was due.
  void CountAnswer(absl::Duration latency, int dim);
  void CountError(const absl::Status& status);

  int64_t due() const { return latency.count() + failed() + not_sent; }
  int64_t failed() const;
  // Calls that were due, and answers within the time allowed, per second.
  double offered_rate() const;
  double goodput() const;

  absl::Duration duration;  // in which the calls that count were due
  absl::Duration within;    // the time allowed

  // Of answers, from the time at which the call was due: what a call had to wait before it was sent
  // belongs to it (without that, a server that stalls is asked less while it does, and looks fast).
  LatencyHistogram latency;
  std::map<absl::StatusCode, Errors> errors;
  int64_t not_sent = 0;         // since too many were on their way
  std::map<int, int64_t> dims;  // answers by the width they were served at; of Recommend
  LatencyHistogram late;        // from when a call was due to when it was sent
  double generator_cpu = 0;     // of the cores that the generator may use: 0 to 1
  int generator_cores = 0;      // that it may use
};

}  // namespace nestrec
