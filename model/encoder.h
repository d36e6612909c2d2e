// From a history to z, the vector that scores items: the serving side of the network (no libtorch,
// no autograd; BLAS on the checkpoint's own bytes).
//
// The maths of the published architecture is that of arXiv 2409.16627, equations 3-9: item
// embedding, blocks of LRU and gated feed-forward, each nested by level; model/architecture.h says
// what else there is. Levels are computed narrow to wide, and z[:s_j] depends on the first j + 1
// levels only; so a narrow result is a prefix of a wide one, bit for bit.
//
// Shapes: z is [histories, dim] row-major float32. Item numbers are 1-based, oldest first; only the
// last max_len count. An empty history gives the learned prior.
//
// Histories of one call are computed together, each up to its own width: narrow ones are left out
// of the wider levels. No bit of a history's z depends on the others.
//
// Thread safety: const methods may run in parallel; each call has its own working memory, about
// 5 blocks * positions * dim floats, of which a narrow history touches its own columns. The encoder
// keeps it for later calls, 128 MiB at most for each of those that ever ran at a time.
// Attention has positions^2 of one history besides.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/input_table.h"
#include "model/item_rows.h"

namespace nestrec {

class ArenaPool;      // model/float_arena.h
struct LruConstants;  // model/encoder_mixer.h

using History = std::span<const int32_t>;

// One history and how wide it is to be encoded.
struct EncodeRow {
  History history;
  int levels = 0;  // at least these
  // Up to these, as long as there is time; 0: as levels.
  int most_levels = 0;
  std::span<float>
      z;             // [dim of the most levels]; columns beyond `finished` levels stay as they are
  int finished = 0;  // out
  // Has items of the history that the model's table does not have, or has otherwise; may be null.
  const ItemRows* item_rows = nullptr;

  int most() const { return most_levels == 0 ? levels : most_levels; }
};

// Asked for a row that has its `levels` and wants more: whether to go on to the next one. At the
// first no, the rows that want more at that point, and were not asked before it, end as well; rows
// that lack more of their `levels`, and then more of their most levels, are asked first.
using GoOn = absl::FunctionRef<bool(size_t row, int finished)>;

class Encoder {
 public:
  // `owner` keeps the view's memory alive; may be null when the caller does.
  static absl::StatusOr<std::unique_ptr<const Encoder>> Create(ModelView view,
                                                               std::shared_ptr<const void> owner);
  ~Encoder();

  const NestedSizes& sizes() const { return view_.sizes; }
  const ModelView& view() const { return view_; }
  int max_len() const { return view_.max_len; }
  // Whether a user's state could be carried on: one more item at a constant cost in time and
  // memory. Otherwise it costs more the longer the history is, up to max_len.
  bool constant_time_step() const { return view_.architecture.constant_time_step(); }

  // Fills z, histories.size() rows of sizes().end(levels - 1) floats. `item_rows` as in EncodeRow.
  // kInvalidArgument for levels outside 1..sizes().levels(), an item number outside 1..item_rows-1
  // that has no row of its own, or a z of another length. `inputs`, of this encoder's view, saves
  // time and changes no bit; may be null.
  absl::Status Encode(std::span<const History> histories, int levels, std::span<float> z,
                      const ItemRows* item_rows = nullptr,
                      const InputTable* inputs = nullptr) const;

  // Every row at its own width: no level is computed twice, whatever was decided on the way. Errors
  // as above, and for most_levels below levels.
  absl::Status Encode(std::span<EncodeRow> rows, GoOn go_on) const;

 private:
  class Run;

  absl::Status Check(const EncodeRow& row) const;
  absl::Status Encode(std::span<EncodeRow> rows, const InputTable* inputs, GoOn go_on) const;

  Encoder(ModelView view, std::vector<LruConstants> lru, std::shared_ptr<const void> owner);

  ModelView view_;
  std::vector<LruConstants> lru_;  // per block
  std::shared_ptr<const void> owner_;
  const std::unique_ptr<ArenaPool> arenas_;  // of calls that ended, for the next ones
};

}  // namespace nestrec
