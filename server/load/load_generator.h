// Sends calls to a server at times fixed beforehand, whether or not earlier ones were answered, and
// measures each from the time at which it was due.
//
//   LoadGenerator generator({.client = {.server = "127.0.0.1:50051"}, .connections = 4}, requests);
//   LoadReport report = generator.Run({.rate = 500, .duration = absl::Seconds(10)});
//
// Threads: the caller's sends, one more receives. The calls are made before they are sent, so that
// the generator costs less than a server does; LoadReport.generator_cpu and .late tell whether the
// generator itself was what limited.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "server/client_channel.h"
#include "server/load/arrivals.h"
#include "server/load/load_report.h"
#include "server/load/request_mix.h"

namespace nestrec {

struct LoadTarget {
  ClientOptions client;  // its timeout is for calls that do not belong to a run
  int connections = 1;   // calls go to them in turn; REQUIRES: >= 1
};

struct LoadOptions {
  double rate = 100;  // calls per second; REQUIRES: > 0
  Arrivals arrivals = Arrivals::kPoisson;
  absl::Duration warm_up = absl::ZeroDuration();  // calls due in it are sent and do not count
  absl::Duration duration = absl::Seconds(10);    // after the warm-up; REQUIRES: > 0
  absl::Duration deadline = absl::Seconds(1);     // of a call, from when it is due
  absl::Duration within = absl::Seconds(1);       // an answer later than this is no goodput
  int64_t most_on_their_way = 10'000;  // calls without an answer; more are counted as not sent
  uint64_t seed = 1;
};

class LoadGenerator {
 public:
  // Connects with the first run. REQUIRES: !requests.empty().
  LoadGenerator(const LoadTarget& target, const std::vector<LoadRequest>& requests);
  ~LoadGenerator();
  LoadGenerator(const LoadGenerator&) = delete;
  LoadGenerator& operator=(const LoadGenerator&) = delete;

  // Begins when the server has answered a GetModelInfo on each connection, in at most 30 s: then it
  // has done what an earlier run left behind. Sends the requests in turn, from where the last run
  // ended. Returns when every call has
  // been answered or has passed its deadline.
  LoadReport Run(const LoadOptions& options);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nestrec
