// The item vectors of a model at one width, for an engine outside that searches them: Milvus,
// Vespa, FAISS, a notebook. An item's score is the inner product of its vector and the history's z
// at that width (model/encoder.h), so inner product is the metric to tell that engine.
//
// The output's name says the format; rows are in the catalogue's order, without the padding item:
//   vectors.jsonl   a line per item: {"item_id":"N000431","vector":[0.25,-1.5e-05,...]}, with as
//                   many digits as give the same float32 back
//   vectors.npy     float32 [items, dim] (base/npy.h); vectors.ids.jsonl beside it has in line r
//                   the id of row r, a JSON string
// JSON lines are what engines take one record at a time; .npy has a sixth of the bytes and is what
// they take in bulk.
//
// Memory: that of the open checkpoint, whatever the number of items.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/checkpoint.h"

namespace nestrec {

// The files that ExportEmbeddings writes for `output`, vectors first. kInvalidArgument, naming the
// two, for a name of neither format.
absl::StatusOr<std::vector<std::string>> EmbeddingFiles(const std::string& output);

// Writes the vectors at the widest size of `checkpoint` that is loaded: every level that is, side
// by side. Each file appears whole or not at all, and new vectors never stand beside old ids: those
// in the way are removed before the ids change. `progress` hears of the items that are done.
// kInvalidArgument, naming the item, for one whose vector is not finite, which engines refuse or
// misplace; kResourceExhausted for a full disk, and the other errors of base/file.h.
absl::Status ExportEmbeddings(const Checkpoint& checkpoint, const std::string& output,
                              absl::FunctionRef<void(int64_t items)> progress);

}  // namespace nestrec
