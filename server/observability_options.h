// What a server is to show of itself. Values.
#pragma once

#include "absl/time/time.h"

namespace nestrec {

class Log;
class Metrics;
class RequestRecorder;

// All that is pointed to outlives the server.
struct ObservabilityOptions {
  Metrics* metrics = nullptr;                              // null: nothing is counted
  const Log* log = nullptr;                                // of calls; null: they get no ids either
  absl::Duration slow_request = absl::InfiniteDuration();  // from which on a call is logged
  double quality_share = 0;  // of the answers that are compared with the widest; needs metrics
  RequestRecorder* recorder = nullptr;  // null: none
};

}  // namespace nestrec
