// What two trainings that should give the same model are compared by.
#pragma once

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/features.h"
#include "model/model_view.h"

namespace nestrec {

// All weights and item embeddings of a checkpoint, one after the other. Fails the test, and has
// none, where it cannot be opened.
inline std::vector<float> CheckpointWeights(const std::string& path) {
  const auto checkpoint = Checkpoint::Open(path, {});
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  if (!checkpoint.ok()) return {};
  ModelView view = (*checkpoint)->view();
  std::vector<float> all;
  for (int level = 0; level < view.sizes.levels(); ++level) {
    const absl::Status visited = VisitLevel(
        view, FeatureWidth((*checkpoint)->info()), level,
        [&](const std::string&, const std::vector<int64_t>&, std::span<const float>& values) {
          all.insert(all.end(), values.begin(), values.end());
          return absl::OkStatus();
        });
    EXPECT_TRUE(visited.ok()) << visited;
  }
  return all;
}

}  // namespace nestrec
