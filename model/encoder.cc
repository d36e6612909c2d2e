#include "model/encoder.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "model/encoder_mixer.h"
#include "model/float_arena.h"
#include "model/level_matrix.h"
#include "model/level_norm.h"

namespace nestrec {
namespace {

float Silu(float x) { return x / (1.0f + std::exp(-x)); }

}  // namespace

// One Encode call. The last block's output is needed at each history's last position alone, so from
// its mixer on there is one row per history.
class Encoder::Run {
 public:
  // REQUIRES: rows that are checked, at least one.
  Run(const Encoder& encoder, std::span<EncodeRow> rows, const InputTable* inputs,
      FloatArena& arena)
      : encoder_(encoder),
        rows_(rows),
        order_(rows.size()),
        input_(arena),
        outputs_{Scratch(arena), Scratch(arena)},
        gate_(arena),
        norm_(arena) {
    std::iota(order_.begin(), order_.end(), size_t{0});
    std::stable_sort(order_.begin(), order_.end(), [&](size_t a, size_t b) {
      return std::pair(rows[a].levels, rows[a].most()) > std::pair(rows[b].levels, rows[b].most());
    });
    int levels = 0;
    packed_.begins.push_back(0);
    for (const size_t row : order_) {
      levels = std::max(levels, rows[row].most());
      const History& history = rows[row].history;
      const size_t count = std::min(history.size(), static_cast<size_t>(encoder.view_.max_len));
      const History last = history.last(count);
      packed_.tokens.insert(packed_.tokens.end(), last.begin(), last.end());
      if (count == 0) packed_.tokens.push_back(0);
      AddOwnRows(rows[row].item_rows);
      packed_.begins.push_back(static_cast<int64_t>(packed_.tokens.size()));
    }
    packed_.active = static_cast<int64_t>(rows.size());
    const NestedSizes& sizes = encoder.view_.sizes;
    const int64_t level_floats = MostLevelFloats(levels);
    if (inputs != nullptr && own_rows_.empty() && inputs->levels() >= levels) inputs_ = inputs;
    const size_t blocks = encoder.view_.blocks.size();
    for (size_t b = 0; b < blocks; ++b) {
      const LevelMixer::Context context = {.view = &encoder.view_,
                                           .block = b,
                                           .lru = &encoder.lru_[b],
                                           .histories = &packed_,
                                           .inputs = b == 0 ? inputs_ : nullptr,
                                           .levels = levels,
                                           .level_floats = level_floats,
                                           .arena = &arena,
                                           .last_only = b + 1 == blocks};
      const LevelMatrix::Layout layout =
          context.last_only ? LevelMatrix::Layout::kFewRows : LevelMatrix::Layout::kManyRows;
      blocks_.push_back({.mixer = LevelMixer::Create(context),
                         .last_only = context.last_only,
                         .norm1 = {packed_.positions(), level_floats, sizes, levels,
                                   LevelMatrix::Layout::kManyRows, arena},
                         .norm2 = {context.rows(), level_floats, sizes, levels, layout, arena},
                         .gated = {context.rows(), level_floats, sizes, levels, layout, arena}});
    }
  }

  void ComputeAll(GoOn go_on) {
    const NestedSizes& sizes = encoder_.view_.sizes;
    for (int level = 0; Choose(level, go_on); ++level) {
      const float* output = ComputeLevel(level);
      for (int64_t h = 0; h < packed_.active; ++h) {
        EncodeRow& row = Row(h);
        std::copy_n(output + h * sizes.width(level), sizes.width(level),
                    row.z.data() + sizes.begin(level));
        row.finished = level + 1;
      }
    }
  }

 private:
  struct BlockBuffers {
    std::unique_ptr<LevelMixer> mixer;
    bool last_only = false;
    LevelMatrix norm1;         // [positions, dim]
    LevelMatrix norm2, gated;  // [rows, dim]
  };

  // Of the history that was packed last.
  void AddOwnRows(const ItemRows* item_rows) {
    const auto begin = static_cast<size_t>(packed_.begins.back());
    const size_t end = packed_.tokens.size();
    if (item_rows == nullptr && own_rows_.empty()) return;
    own_rows_.resize(end, nullptr);
    for (size_t p = begin; item_rows != nullptr && p < end; ++p) {
      own_rows_[p] = item_rows->RowOf(packed_.tokens[p]);
    }
  }
  // Of the positions that may reach a level.
  int64_t MostLevelFloats(int levels) const {
    int64_t most = 0;
    for (int level = 0; level < levels; ++level) {
      int64_t positions = 0;
      for (size_t h = 0; h < order_.size(); ++h) {
        if (rows_[order_[h]].most() > level) positions += packed_.length(static_cast<int64_t>(h));
      }
      most = std::max(most, positions * encoder_.view_.sizes.width(level));
    }
    return most;
  }
  EncodeRow& Row(int64_t history) { return rows_[order_[static_cast<size_t>(history)]]; }
  int64_t RowsOf(const BlockBuffers& buffers) const {
    return buffers.last_only ? packed_.histories() : packed_.positions();
  }

  // Leaves active who goes on to `level`; false when nobody does.
  bool Choose(int level, GoOn go_on) {
    const auto goes_on = [&](int64_t h) {
      const EncodeRow& row = Row(h);
      return row.levels > level ||
             (row.most() > level && go_on(order_[static_cast<size_t>(h)], level));
    };
    int64_t active = 0;
    while (active < packed_.active && goes_on(active)) ++active;
    packed_.active = active;
    return active > 0;
  }

  // Returns z's columns of the level, [active histories, w_j]. REQUIRES: all levels below are
  // computed.
  const float* ComputeLevel(int level) {
    const float* x = FillInput(level);
    for (size_t b = 0; b < blocks_.size(); ++b) x = ComputeBlockLevel(b, level, x);
    if (!encoder_.view_.architecture.final_norm) return x;
    const NormLevel& norm = encoder_.view_.final_norm[static_cast<size_t>(level)];
    const int width = encoder_.view_.sizes.width(level);
    float* z = norm_.Room(packed_.active * width);
    for (int64_t h = 0; h < packed_.active; ++h) {
      NormalizeLevel(x + h * width, norm.scale, norm.shift, z + h * width);
    }
    return z;
  }

  // input_scale * items + positions, [positions, w_j]
  const float* FillInput(int level) {
    const ModelView& view = encoder_.view_;
    const int width = view.sizes.width(level);
    float* input = input_.Room(packed_.positions() * width);
    const float* items = view.items[static_cast<size_t>(level)].data();
    const float* positions = view.positions[static_cast<size_t>(level)].data();
    const float scale = view.architecture.input_scale;
    for (int64_t h = 0; h < packed_.histories(); ++h) {
      for (int64_t p = packed_.begin(h); p < packed_.begin(h + 1); ++p) {
        const int64_t item = packed_.tokens[static_cast<size_t>(p)];
        const float* own = own_rows_.empty() ? nullptr : own_rows_[static_cast<size_t>(p)];
        float* row = input + p * width;
        std::copy_n(own != nullptr ? own + view.sizes.begin(level) : items + item * width, width,
                    row);
        if (scale != 1.0f) {
          for (int c = 0; c < width; ++c) row[c] *= scale;
        }
        if (!view.architecture.has_positions()) continue;
        const float* position = positions + (p - packed_.begin(h)) * width;
        for (int c = 0; c < width; ++c) row[c] += position[c];
      }
    }
    return input;
  }

  // x [positions, w_j] to the block's output, [rows, w_j].
  const float* ComputeBlockLevel(size_t block, int level, const float* x) {
    const NestedSizes& sizes = encoder_.view_.sizes;
    const int width = sizes.width(level);
    const BlockLevel& weights = encoder_.view_.blocks[block][static_cast<size_t>(level)];
    BlockBuffers& buffers = blocks_[block];
    const int64_t rows = RowsOf(buffers);
    if (block > 0 || inputs_ == nullptr) {
      buffers.norm1.Start(level);
      for (int64_t p = 0; p < packed_.positions(); ++p) {
        NormalizeLevel(x + p * width, weights.norm1_scale, weights.norm1_shift,
                       buffers.norm1.at(p));
      }
      buffers.norm1.Complete(packed_.positions());
    }
    // x + mixer(norm1), at the rows that go on.
    float* output = outputs_[block % 2].Room(rows * width);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = buffers.last_only ? packed_.begin(r + 1) - 1 : r;
      std::copy_n(x + row * width, width, output + r * width);
    }
    buffers.mixer->AddLevel(level, buffers.norm1, output);
    buffers.norm2.Start(level);
    for (int64_t r = 0; r < rows; ++r) {
      NormalizeLevel(output + r * width, weights.norm2_scale, weights.norm2_shift,
                     buffers.norm2.at(r));
    }
    buffers.norm2.Complete(rows);
    // + W2 gated
    FeedForwardInner(weights, level, buffers);
    buffers.gated.Multiply(weights.w2, sizes.end(level), Into::kAdd, output, width, width);
    return output;
  }

  // gated = SiLU(Wg norm2) * W1 norm2, or ReLU(W1 norm2)
  void FeedForwardInner(const BlockLevel& weights, int level, BlockBuffers& buffers) {
    const int end = encoder_.view_.sizes.end(level);
    const int width = encoder_.view_.sizes.width(level);
    const int64_t rows = RowsOf(buffers);
    buffers.gated.Start(level);
    buffers.norm2.Multiply(weights.w1, end, Into::kSet, buffers.gated.at(0), buffers.gated.stride(),
                           width);
    const bool gates = encoder_.view_.architecture.feed_forward == FeedForward::kGated;
    float* gate = gate_.Room(rows * width);
    if (gates) buffers.norm2.Multiply(weights.wg, end, Into::kSet, gate, width, width);
    for (int64_t r = 0; r < rows; ++r) {
      float* gated = buffers.gated.at(r);
      for (int c = 0; c < width; ++c) {
        gated[c] = gates ? gated[c] * Silu(gate[r * width + c]) : std::max(gated[c], 0.0f);
      }
    }
    buffers.gated.Complete(rows);
  }

  const Encoder& encoder_;
  const std::span<EncodeRow> rows_;
  std::vector<size_t> order_;  // the row of each history in packed_: those that go on longest first
  PackedHistories packed_;
  // By position: the embedding [D] of an item that is not the table's, else null; empty: all null.
  std::vector<const float*> own_rows_;
  const InputTable* inputs_ = nullptr;  // of the first block, which then normalises nothing
  std::vector<BlockBuffers> blocks_;
  // Of the level at hand: what enters the first block, what leaves a block (blocks take turns), the
  // feed-forward's gate, what the last norm makes.
  Scratch input_, outputs_[2], gate_, norm_;
};

Encoder::Encoder(ModelView view, std::vector<LruConstants> lru, std::shared_ptr<const void> owner)
    : view_(std::move(view)),
      lru_(std::move(lru)),
      owner_(std::move(owner)),
      arenas_(std::make_unique<ArenaPool>()) {}

Encoder::~Encoder() = default;

absl::StatusOr<std::unique_ptr<const Encoder>> Encoder::Create(ModelView view,
                                                               std::shared_ptr<const void> owner) {
  if (view.blocks.empty()) return absl::InvalidArgumentError("the model has no blocks");
  std::vector<LruConstants> lru;
  for (const std::vector<BlockLevel>& block : view.blocks) lru.push_back(LruConstantsOf(block));
  return std::unique_ptr<const Encoder>(
      new Encoder(std::move(view), std::move(lru), std::move(owner)));
}

absl::Status Encoder::Check(const EncodeRow& row) const {
  for (const auto& [name, levels] :
       {std::pair("levels", row.levels), std::pair("most_levels", row.most())}) {
    if (levels < 1 || levels > view_.sizes.levels()) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": ", levels, " is outside 1..",
                                                     view_.sizes.levels(),
                                                     ", the levels of this model"));
    }
  }
  if (row.most() < row.levels) {
    return absl::InvalidArgumentError(absl::StrCat("most_levels: ", row.most(),
                                                   " is less than levels, ", row.levels,
                                                   "; give at least these"));
  }
  const auto expected = static_cast<size_t>(view_.sizes.end(row.most() - 1));
  if (row.z.size() != expected) {
    return absl::InvalidArgumentError(
        absl::StrCat("z: room for ", row.z.size(), " floats, but ", expected, " are needed"));
  }
  for (const int32_t item : row.history) {
    const bool has_row = row.item_rows != nullptr && row.item_rows->RowOf(item) != nullptr;
    if (item < 1 || (item >= view_.item_rows && !has_row)) {
      return absl::InvalidArgumentError(
          absl::StrCat("history: item number ", item, " is outside 1..", view_.item_rows - 1));
    }
  }
  return absl::OkStatus();
}

absl::Status Encoder::Encode(std::span<EncodeRow> rows, GoOn go_on) const {
  return Encode(rows, nullptr, go_on);
}

absl::Status Encoder::Encode(std::span<EncodeRow> rows, const InputTable* inputs,
                             GoOn go_on) const {
  for (const EncodeRow& row : rows) NESTREC_RETURN_IF_ERROR(Check(row));
  if (rows.empty()) return absl::OkStatus();
  return Guard("encode", [&]() -> absl::Status {
    const ArenaPool::Lease arena = arenas_->Take();
    Run(*this, rows, inputs, *arena).ComputeAll(go_on);
    return absl::OkStatus();
  });
}

absl::Status Encoder::Encode(std::span<const History> histories, int levels, std::span<float> z,
                             const ItemRows* item_rows, const InputTable* inputs) const {
  if (levels < 1 || levels > view_.sizes.levels()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "levels: ", levels, " is outside 1..", view_.sizes.levels(), ", the levels of this model"));
  }
  const auto dim = static_cast<size_t>(view_.sizes.end(levels - 1));
  if (z.size() != histories.size() * dim) {
    return absl::InvalidArgumentError(absl::StrCat("z: room for ", z.size(), " floats, but ",
                                                   histories.size() * dim, " are needed"));
  }
  std::vector<EncodeRow> rows;
  for (size_t i = 0; i < histories.size(); ++i) {
    rows.push_back({.history = histories[i],
                    .levels = levels,
                    .z = z.subspan(i * dim, dim),
                    .item_rows = item_rows});
  }
  return Encode(rows, inputs, [](size_t, int) { return false; });
}

}  // namespace nestrec
