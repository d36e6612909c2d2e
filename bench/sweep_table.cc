#include "bench/sweep_table.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "index/index_sweep.h"

namespace nestrec {

using Json = nlohmann::ordered_json;

absl::Status PrintSweep(const Problem& problem, const SweepTable& flags) {
  const size_t dim = static_cast<size_t>(problem.dim);
  const size_t examples =
      static_cast<size_t>(std::max<int64_t>(0, problem.queries.rows - flags.queries)) * dim;
  const std::span<const float> queries(problem.queries.values);
  SweepOptions options{.levels = problem.sizes.levels(),
                       .k = flags.k,
                       .factories = flags.factories,
                       .examples = queries.first(examples)};
  NESTREC_ASSIGN_OR_RETURN(const IndexSweep sweep,
                           SweepIndexes(problem.view(), queries.subspan(examples), options));
  const double flat = sweep.flat_queries_per_second;
  const double vectors = static_cast<double>(problem.items * problem.dim * 4);
  if (!flags.json) {
    std::printf("%lld items of dim %lld, top %d, %lld queries, recall %.3f wanted, one thread\n\n",
                static_cast<long long>(problem.items), static_cast<long long>(problem.dim), flags.k,
                static_cast<long long>(flags.queries), flags.recall);
    std::printf("%-20s %-24s %8s %12s %8s %10s %8s\n", "index", "setting", "recall", "us a query",
                "of Flat", "of vectors", "build s");
    std::printf("%-20s %-24s %8.4f %12.1f %7.1fx %10.3f %8s\n", "Flat", "", 1.0, 1e6 / flat, 1.0,
                1.0, "");
  }
  for (const SweepIndex& index : sweep.indexes) {
    if (index.factory == "Flat") continue;  // the first line
    if (!index.skipped.empty()) {
      std::fprintf(stderr, "left out: %s: %s\n", index.factory.c_str(), index.skipped.c_str());
      continue;
    }
    const SweepPoint* best = nullptr;
    for (const SweepPoint& point : sweep.points) {
      const bool enough = point.recall >= flags.recall;
      if (point.factory == index.factory && enough &&
          (best == nullptr || point.queries_per_second > best->queries_per_second)) {
        best = &point;
      }
    }
    Json row;
    row["index"] = index.factory;
    row["bytes_of_vectors"] = static_cast<double>(index.bytes) / vectors;
    row["build_seconds"] = index.build_seconds;
    if (best != nullptr) {
      row["parameters"] = best->parameters;
      row["candidates"] = best->candidates;
      row["recall"] = best->recall;
      row["microseconds"] = 1e6 / best->queries_per_second;
      row["speedup"] = best->times_flat;
    }
    if (flags.json) {
      std::printf("%s\n", row.dump().c_str());
    } else if (best == nullptr) {
      std::printf("%-20s %-24s %8s %12s %8s %10.3f %8.1f\n", index.factory.c_str(),
                  "none reaches it", "", "", "", static_cast<double>(index.bytes) / vectors,
                  index.build_seconds);
    } else {
      std::printf("%-20s %-24s %8.4f %12.1f %7.1fx %10.3f %8.1f\n", index.factory.c_str(),
                  absl::StrCat(best->parameters, best->candidates > 0 ? " candidates=" : "",
                               best->candidates > 0 ? absl::StrCat(best->candidates) : "")
                      .c_str(),
                  best->recall, 1e6 / best->queries_per_second, best->times_flat,
                  static_cast<double>(index.bytes) / vectors, index.build_seconds);
    }
  }
  return absl::OkStatus();
}

}  // namespace nestrec
