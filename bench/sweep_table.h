// The cheapest setting of each index that reaches a recall, as index_bench prints it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/index_problem.h"

namespace nestrec {

struct SweepTable {
  std::vector<std::string> factories;  // index/index_sweep.h
  int64_t queries = 0;                 // the last ones of the problem's; those before are examples
  int k = 100;
  double recall = 0.99;
  bool json = false;  // an object per line instead
};

// Errors of SweepIndexes.
absl::Status PrintSweep(const Problem& problem, const SweepTable& flags);

}  // namespace nestrec
