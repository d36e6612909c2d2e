// The mixers at serving: what one block's mixer adds to the histories of one Encode call, level by
// level, narrow to wide. Only the encoder and
// the stepper include it.
//
// Matrices are row-major float32. Positions of all histories are packed row after row; n and out
// have rows of `dim` floats, of which a level owns columns [sizes.begin(level), sizes.end(level)).
// Maths: arXiv 2409.16627 (LRU), 1406.1078 (GRU, the reset gate applied after the product),
// 1706.03762 (attention).
//
// Thread safety: a mixer belongs to one call.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/checkpoint.h"

namespace nestrec {

// The histories of one call, without padding: rows [begins[h], begins[h + 1]) are history h's
// items, oldest first.
struct PackedHistories {
  std::vector<int32_t> tokens;  // [positions]
  std::vector<int64_t> begins;  // [histories + 1]

  int64_t positions() const { return static_cast<int64_t>(tokens.size()); }
  int64_t histories() const { return static_cast<int64_t>(begins.size()) - 1; }
  int64_t begin(int64_t history) const { return begins[static_cast<size_t>(history)]; }
  int64_t length(int64_t history) const { return begin(history + 1) - begin(history); }
};

// An LRU's lambda and gamma, [max_dim] each; empty for other mixers.
struct LruConstants {
  std::vector<float> lambda_re, lambda_im, gamma;
};
LruConstants LruConstantsOf(const std::vector<BlockLevel>& block);

// y[:, :width] = (accumulate ? y : 0) + x[:, :columns] W^T + b over `rows` rows that lie ldx and
// ldy apart. `columns` of W's are used, from `first` on; W's rows have W.size() / width.
struct Product {
  int64_t rows;
  const float* x;
  int64_t ldx;
  float* y;
  int64_t ldy;
  int width;
  int columns;
  int first = 0;
  bool accumulate = false;
  float factor = 1.0f;  // of the product, not of b
};
void Apply(const LinearLevel& level, const Product& product);

class LevelMixer {
 public:
  struct Context {
    const ModelView* view;
    size_t block;
    const LruConstants* lru;  // of this block
    const PackedHistories* histories;
    int64_t dim;
    // Whether `out` has a row for each history, at its last position, instead of one for each
    // position.
    bool last_only;

    int64_t rows() const { return last_only ? histories->histories() : histories->positions(); }
  };

  // What `context` points to outlives the mixer.
  static std::unique_ptr<LevelMixer> Create(const Context& context);
  virtual ~LevelMixer() = default;

  // Adds to out's columns of `level` [rows, dim]. n [positions, dim]: the normalised input, at
  // least up to this level. REQUIRES: all levels below are added.
  virtual void AddLevel(int level, const float* n, float* out) = 0;
};

}  // namespace nestrec
