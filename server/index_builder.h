// Makes the index that a tier asks for: read from its file where it was kept, else built, with
// lines in the log that say how far it is and why it was not read.
//
// Thread safety: may run in parallel for different indexes; the log gets lines from every thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "index/item_index.h"
#include "index/level_vectors.h"
#include "model/encoder.h"
#include "server/log.h"
#include "server/tiers.h"

namespace nestrec {

// Where the vectors come from and where their indexes are kept.
struct IndexSource {
  LevelVectors vectors;
  std::shared_ptr<const void> owner;  // of the vectors' memory
  std::string version;                // the checkpoint's fingerprint
  std::string folder;                 // empty: indexes are not kept
  // [n, D] examples of what will be asked, which the nested index orders its columns by; may be
  // empty (ExampleQueries).
  std::span<const float> queries;
  // Nested indexes may hold views of the items in fewer columns (index/reduced_view.h).
  bool reduce = false;
};

// What the encoder makes of short histories of items drawn at random (always the same ones), [n, D]
// row-major: near enough to real queries to order columns by.
absl::StatusOr<std::vector<float>> ExampleQueries(const Encoder& encoder);

// What "auto" stands for at a width: the nested index where it has codes to search by and was
// measured to be at least as fast as FAISS's flat scan (docs/nested_index.md), which is from 64
// columns and kNestedItems items on; else "Flat". Both are exact. Other specs are themselves.
inline constexpr int kNestedDim = 64;
inline constexpr int64_t kNestedItems = 4096;
IndexSpec Resolved(const IndexSpec& spec, int dim, int64_t items);

// Log events: index_loaded; index_building, again about every ten seconds with the percentage, and
// index_built; index_not_loaded and index_not_saved, which are warnings, with the reason. An index
// that cannot be kept serves from memory.
//
// The factory "nested" makes the nested index, with the parameters of index/nested_builder.h.
//
// Errors of BuildFaissIndex and BuildNestedIndex. REQUIRES: the spec is resolved.
absl::StatusOr<std::unique_ptr<const ItemIndex>> MakeIndex(const IndexSource& source, int dim,
                                                           const IndexSpec& spec, const Log& log);

}  // namespace nestrec
