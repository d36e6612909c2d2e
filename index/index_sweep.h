// Tries search settings of indexes on real vectors and queries: what recall they have, and what
// they cost beside the exact search of "Flat".
//
// Thread safety: pure functions that use the calling thread alone, whatever OpenMP's setting; only
// building takes more.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "index/level_vectors.h"

namespace nestrec {

struct SweepOptions {
  int levels = 0;
  int64_t k = 10;
  // FAISS factory strings; of inverted files nprobe is swept, of graphs efSearch, of what is
  // quantised also how many candidates are ranked again. "nested": the nested index, exact and with
  // recall targets.
  std::vector<std::string> factories;
  // Queries that settings may be fitted to, [n, dim], apart from those that are measured. None:
  // items stand in.
  std::span<const float> examples = {};
  double seconds_per_setting = 0.3;  // at least one round over the queries, and the best counts
  // Called before every setting, for people.
  std::function<void(const std::string& what)> progress = {};
};

// One point of the sweep.
struct SweepPoint {
  std::string factory;
  std::string parameters;  // FAISS search settings, or "recall=0.99"; empty: none to set
  int candidates = 0;      // ranked again, beyond k; 0: as many as k
  double recall = 0;       // share of the true best k, mean over the queries
  double queries_per_second = 0;
  double times_flat = 0;  // queries_per_second over that of "Flat" in the same sweep
};

struct SweepIndex {
  std::string factory;
  int64_t bytes = 0;
  double build_seconds = 0;
  std::string skipped;  // why it was not swept; else empty
};

struct IndexSweep {
  double flat_queries_per_second = 0;
  std::vector<SweepIndex> indexes;
  std::vector<SweepPoint> points;  // by index, then from cheap to costly settings
};

// `queries` is [n, dim] for the dim of options.levels. kInvalidArgument: no queries, a length that
// is no multiple of dim, k < 1, vectors or levels that BuildFaissIndex refuses. A factory that it
// refuses is skipped with the reason.
absl::StatusOr<IndexSweep> SweepIndexes(const LevelVectors& vectors, std::span<const float> queries,
                                        const SweepOptions& options);

// The point with the most queries per second whose recall is at least `recall`; null: none.
const SweepPoint* CheapestWith(const IndexSweep& sweep, double recall);

// Factories that are worth trying for so many items of a width, "Flat" not among them.
std::vector<std::string> DefaultFactories(int64_t items, int dim);

}  // namespace nestrec
