// What a batch of requests will cost at every width, by what such work did cost.
//
// Thread safety: pure; CostModel has a lock of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "server/cost_model.h"

namespace nestrec {

struct BatchWork {
  int64_t rows = 0;     // items to encode
  size_t searches = 0;  // with neither these nor similar, only vectors are asked for
  size_t similar = 0;   // searches by cosine
  std::span<const int64_t> explained = {};  // items to encode for each explanation
};

// By level; empty where nothing is known.
struct BatchEstimate {
  std::vector<absl::Duration> encode;  // all of it
  std::vector<absl::Duration> after;   // search and answer of all of it
  std::vector<absl::Duration> total;
  std::vector<absl::Duration> usual_total;
};

// Times that are not exceeded in 19 of 20 cases; usual_total: in half of them.
BatchEstimate EstimateBatch(const CostModel& costs, const BatchWork& work);

}  // namespace nestrec
