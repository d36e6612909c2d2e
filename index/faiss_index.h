// Item indexes made by FAISS, inner product, from a factory string.
//
//   NESTREC_ASSIGN_OR_RETURN(auto index, BuildFaissIndex(vectors, levels, options, checkpoint));
//   NESTREC_ASSIGN_OR_RETURN(SearchResult result, index->Search(query, {.k = 10}));
//
// FAISS finds candidates, the canonical score ranks them. For "Flat" the result is exact: FAISS's
// float sums differ from the canonical score by at most a bound that follows from the norms
// (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: gamma_n |x|^T |y| for any
// order of summation), so a search that cannot rule the rest out with its candidates asks for more,
// and ranks everything when that does not settle it either. That also settles ties. Every other
// factory is approximate: it returns the best of its candidates, always as many as asked for.
//
// Filters work inside FAISS's scan through a selector, or by asking for more candidates where a
// kind of index knows no selectors.
//
// Shapes: the index holds a copy, [items, dim] row-major float32 for "Flat"; label r of FAISS is
// item r + 1.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "index/item_index.h"
#include "index/kept_index.h"
#include "index/level_vectors.h"

namespace nestrec {

struct FaissIndexOptions {
  // What to build: "Flat", "HNSW32", "IVF256,Flat", "SQ8", "OPQ16,IVF256,PQ16", ...
  std::string factory = "Flat";
  // Search settings as faiss::ParameterSpace reads them: "nprobe=16,efSearch=64". Empty: FAISS's
  // defaults.
  std::string parameters;
  // Candidates beyond k: more make a second look rarer (Flat) or recall higher (the others).
  int extra_candidates = 32;
  // Called now and then while building, on the building thread: so many items of all are in.
  std::function<void(int64_t added, int64_t items)> progress = {};
};

// With how many items an index is trained whose lists are so many (0: none); they are spread evenly
// over all. FAISS itself looks at no more for the centres of lists and for codes of 12 bits.
int64_t TrainingItems(int64_t items, int64_t lists);

// Copies the first `levels` levels. `owner` keeps the vectors' memory alive as long as the index
// (it rescores from it); null when the caller does.
//
// kInvalidArgument: inconsistent vectors, `levels` out of range, a value that is not finite (item
// and column are named), or a factory string or parameters that FAISS does not accept for these
// vectors. kResourceExhausted: out of memory.
absl::StatusOr<std::unique_ptr<const ItemIndex>> BuildFaissIndex(const LevelVectors& vectors,
                                                                 int levels,
                                                                 const FaissIndexOptions& options,
                                                                 std::shared_ptr<const void> owner);

// An index whose search settings can be changed, for finding good ones.
class TunableFaissIndex : public ItemIndex {
 public:
  // Replaces FaissIndexOptions.parameters, and candidates beyond k. kInvalidArgument for parameters
  // that FAISS does not accept. Not while a search runs.
  virtual absl::Status Tune(const std::string& parameters, int extra_candidates) = 0;
};

// Errors of BuildFaissIndex.
absl::StatusOr<std::unique_ptr<TunableFaissIndex>> BuildTunableFaissIndex(
    const LevelVectors& vectors, int levels, const FaissIndexOptions& options,
    std::shared_ptr<const void> owner);

// Reads the index from `path` (format: index/index_file.h) if it is one of the same origin, shape,
// factory and FAISS release, and its checksums are right; else builds it and writes it there, for
// the next time. `source` says which vectors these are, such as a checkpoint's fingerprint: equal
// sources must mean equal vectors. Search settings are not part of the file.
//
// Errors of BuildFaissIndex alone.
absl::StatusOr<KeptIndex> LoadOrBuildFaissIndex(const LevelVectors& vectors, int levels,
                                                const FaissIndexOptions& options,
                                                std::shared_ptr<const void> owner,
                                                const std::string& path, absl::string_view source);

// Whether reading an index back is faster than building it: "Flat" is a copy of the vectors.
bool IsWorthKeeping(const FaissIndexOptions& options);

}  // namespace nestrec
