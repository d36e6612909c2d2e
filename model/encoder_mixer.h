// The mixers at serving: what one block's mixer adds to the histories of one Encode call, level by
// level, narrow to wide. Only the encoder and the stepper include it.
//
// Matrices are row-major float32. Positions of all histories are packed row after row.
// Histories that end at a narrower level than others stand last and are left out of the wider
// levels. No row's bits depend on what else is in the call.
//
// Maths: arXiv 2409.16627 (LRU), 1406.1078 (GRU, the reset gate applied after the product),
// 1706.03762 (attention).
//
// Thread safety: a mixer belongs to one call.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/checkpoint.h"
#include "model/float_arena.h"
#include "model/input_table.h"
#include "model/level_matrix.h"

namespace nestrec {

// The histories of one call, without padding: rows [begins[h], begins[h + 1]) are history h's
// items, oldest first.
struct PackedHistories {
  std::vector<int32_t> tokens;  // [all positions]
  std::vector<int64_t> begins;  // [all histories + 1]
  int64_t active = 0;           // the first ones, that the level at hand is computed for

  int64_t positions() const { return begin(active); }
  int64_t histories() const { return active; }
  int64_t begin(int64_t history) const { return begins[static_cast<size_t>(history)]; }
  int64_t length(int64_t history) const { return begin(history + 1) - begin(history); }
};

// An LRU's lambda and gamma, [max_dim] each; empty for other mixers.
struct LruConstants {
  std::vector<float> lambda_re, lambda_im, gamma;
};
LruConstants LruConstantsOf(const std::vector<BlockLevel>& block);

class LevelMixer {
 public:
  struct Context {
    const ModelView* view;
    size_t block;
    const LruConstants* lru;  // of this block
    const PackedHistories* histories;
    const InputTable* inputs;  // of this block, or null: then `n` is read
    int levels;                // of the widest history
    int64_t level_floats;      // the most of any level's positions
    FloatArena* arena;         // of the call
    // Whether `out` has a row for each history, at its last position, instead of one for each
    // position.
    bool last_only;

    // At the level at hand.
    int64_t rows() const { return last_only ? histories->histories() : histories->positions(); }
  };

  // What `context` points to outlives the mixer; all histories are active.
  static std::unique_ptr<LevelMixer> Create(const Context& context);
  virtual ~LevelMixer() = default;

  // Adds to out [rows, w_j]. n: the normalised input, complete up to this level; not read where
  // there are `inputs`. REQUIRES: all
  // levels below are added.
  virtual void AddLevel(int level, const LevelMatrix& n, float* out) = 0;
};

}  // namespace nestrec
