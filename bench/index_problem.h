// Items and queries to search with, for benches of indexes: a model's own items, or samples from a
// mixture fitted to them, and its encoder's vectors of histories.
//
// Thread safety: pure functions, which use OpenMP's threads.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/nested_sizes.h"
#include "base/npy.h"
#include "index/half_levels.h"
#include "index/level_vectors.h"
#include "index/nested_codes.h"

namespace nestrec {

struct ProblemOptions {
  std::string model;        // checkpoint
  std::string data;         // folder whose users' histories are the queries; empty: random ones
  std::string vectors;      // folder that keeps items.npy and queries.npy; empty: they are not kept
  int64_t items = 0;        // 0: the model's own
  int64_t queries = 64;     // that are measured
  int64_t examples = 1000;  // that indexes are fitted to, which come first
  int dim = 0;              // 0: the widest
  int clusters = 100;       // of the mixture
  bool noise = false;       // items are Gaussian noise
  bool float16 = false;     // levels are rounded to float16
};

// Vectors of one width, row-major as other libraries want them and by level as the store does.
struct Problem {
  NestedSizes sizes;
  int64_t items = 0;
  int64_t dim = 0;
  std::shared_ptr<const void> owner;       // of rows: a matrix, or a mapped file
  std::span<const float> rows;             // [items, dim]
  Matrix queries;                          // [queries, dim]
  std::vector<std::vector<float>> levels;  // [items + 1, width]; none where there are halves
  std::optional<HalfLevels> halves;        // of the levels
  double explained = 0;                    // by the mixture's clusters; 0: no mixture

  LevelVectors view() const {
    if (halves.has_value()) return halves->vectors;
    LevelVectors view{.sizes = sizes, .rows = items + 1, .levels = {}};
    for (const auto& level : levels) view.levels.emplace_back(level);
    return view;
  }
};

absl::StatusOr<Problem> MakeProblem(const ProblemOptions& options);

// Where codes come from, and how long it took.
struct CodesTimes {
  double made = 0, written = 0, read = 0;  // seconds
};

// Codes of all widths, narrow to wide: from the files in `folder` where they are there, which it
// writes where they are not; empty: no files.
absl::StatusOr<std::vector<std::unique_ptr<const NestedCodes>>> MakeCodes(
    const Problem& problem, std::span<const float> examples, const std::string& folder,
    CodesTimes& times);

}  // namespace nestrec
