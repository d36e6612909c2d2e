// Ranks of target items among all items, for the evaluator: at every size of a nested model in one
// pass over the items, counted where the scores are made, so that no scores are kept.
//
// Item tables are level-major, [item_rows, w_j] row-major float32 for each level j; row 0 is the
// padding item and takes no part. The score of an item at size s_j is <z[:s_j], e[:s_j]>: the sum
// over the levels, narrow to wide, of sums over at most 256 columns in their order. So its bits
// depend on z and the item alone, equal items have equal scores, and ties are exact.
//
// Thread safety: pure functions; they run on the calling thread.
#pragma once

#include <cstdint>
#include <span>

#include "base/nested_sizes.h"
#include "model/packed_rows.h"

namespace nestrec {

// A view.
struct LevelItems {
  const NestedSizes* sizes;
  int levels;                                     // the first ones are used
  std::span<const std::span<const float>> items;  // at least `levels` of [item_rows, w_j]
  int64_t item_rows;                              // items + 1
};

// scores [levels, which.size()] of the items `which`, each within 1 .. item_rows - 1. z [dim].
void ScoreItems(const LevelItems& items, const float* z, std::span<const int32_t> which,
                float* scores);

// before [levels, users]: how many items rank before the user's target: those with a higher score,
// and those with the same score and a lower number. z: as many rows and at least as many columns as
// there are users and columns of the levels. target_scores [levels, users] are ScoreItems' own.
// REQUIRES: targets within 1 .. item_rows - 1; item_rows <= 2^31.
void CountBefore(const LevelItems& items, const PackedRows& z, std::span<const int32_t> targets,
                 const float* target_scores, int64_t* before);

// 1-based rank of `target` in scores [item_rows]: the same count over scores that are at hand.
int64_t RankOf(std::span<const float> scores, int32_t target);

}  // namespace nestrec
