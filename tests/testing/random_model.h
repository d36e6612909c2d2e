// A small model with random weights, for tests that need a checkpoint and not a good one. Weights
// have the ranges that the real initialisation has, so nothing overflows or vanishes.
//
//   const RandomModel model({.sizes = {8, 16, 32}});
//   ASSERT_TRUE(model.Write(path).ok());
//
// The catalogue: item n has the id "item-<n>", but 2 is "item 2 with spaces" and 3 is "品目-3";
// titles are "Title <n>", brands "Brand <n mod 5>", prices n + 0.50; item 5 has no title.
//
// Thread safety: immutable once made.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/random.h"
#include "model/catalogue.h"
#include "model/checkpoint.h"

namespace nestrec {

struct RandomModelOptions {
  std::vector<int> sizes = {8, 16, 32};
  int blocks = 1;
  int64_t items = 200;
  int feature_width = 12;  // 0: no modality
  Architecture architecture = {};
  int max_len = 10;
  bool with_metrics = true;  // made up: recall@10 on test is dim / 1000
  uint64_t seed = 1;
};

// The id of item `item` in every RandomModel.
std::string RandomModelItemId(int64_t item);

class RandomModel {
 public:
  explicit RandomModel(const RandomModelOptions& options);
  RandomModel(RandomModel&&) = default;  // the view stays valid: vectors keep their memory

  const ModelView& view() const { return view_; }
  const ModelInfo& info() const { return info_; }
  const Catalogue& catalogue() const { return catalogue_; }
  absl::Status Write(const std::string& path) const;

 private:
  std::vector<std::vector<float>> tensors_;
  ModelView view_;
  ModelInfo info_;
  Catalogue catalogue_;
};

}  // namespace nestrec
