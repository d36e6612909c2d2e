// A data folder in memory: who interacted with what, the catalogue, and the items' features.
//
//   interactions.txt         a line per user: user id, then item numbers, oldest first
//   items.jsonl              line r describes item r; `item_id`, or `asin`, is its external id
//   features/<modality>.npy  float32 [items, width], row r-1 = item r; a zero row: the item has
//   none features/text.encoder.safetensors   optional: how text.npy was made, see
//   model/prepare/text_encoder.h
//
// Thread safety: immutable once loaded.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/npy.h"
#include "model/catalogue.h"

namespace nestrec {

struct Modality {
  std::string name;  // the file's stem: "text", "image", ...
  Matrix features;   // [items, width]
};

// XXH3-64 of the matrix's width and values, 16 hex digits.
std::string FeaturesFingerprint(const Matrix& features);

struct Dataset {
  static constexpr char kNoFeatures[] = "none";

  struct Options {
    // Which modalities to read, in the order in which their columns are concatenated; empty: all of
    // the folder, "text" first, then "image", then the others by name. kNoFeatures alone: none.
    std::vector<std::string> modalities;
    bool load_features = true;
  };

  // kNotFound for a missing folder, file or asked-for modality; kInvalidArgument, naming file and
  // line (or row), for an item number outside 1..N, a bad line, a duplicate user or item id,
  // features with another row count than the catalogue or with NaN; kFailedPrecondition for no
  // users, no items or no features at all.
  static absl::StatusOr<std::shared_ptr<const Dataset>> Load(const std::string& folder,
                                                             const Options& options);

  int64_t users() const { return static_cast<int64_t>(user_ids.size()); }
  int64_t items() const { return catalogue->size(); }
  // Item numbers of user u (0-based), oldest first.
  std::span<const int32_t> sequence(int64_t u) const {
    return {interactions.data() + offsets[u], static_cast<size_t>(offsets[u + 1] - offsets[u])};
  }

  std::string folder;
  std::vector<std::string> user_ids;
  std::vector<int64_t> offsets;       // [users + 1]
  std::vector<int32_t> interactions;  // all sequences, one after the other
  std::shared_ptr<const Catalogue> catalogue;
  std::vector<Modality> modalities;
  // XXH3-64 of the interactions and the item ids, 16 hex digits: the same data gives the same
  // value.
  std::string fingerprint;
};

}  // namespace nestrec
