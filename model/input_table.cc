#include "model/input_table.h"

#include <algorithm>

#include "model/float_arena.h"
#include "model/level_matrix.h"
#include "model/level_norm.h"

namespace nestrec {

std::vector<const LinearLevel*> InputLayers(const ModelView& view, const BlockLevel& block) {
  switch (view.architecture.mixer) {
    case Mixer::kLru:
      return {&block.lru.b_re, &block.lru.b_im};
    case Mixer::kGru:
      return {&block.gru.wr, &block.gru.wu, &block.gru.wc};
    case Mixer::kAttention:
      break;
  }
  return {};
}

std::unique_ptr<const InputTable> InputTable::Make(const ModelView& view, int levels,
                                                   int64_t most_bytes) {
  constexpr int64_t kItemsAtOnce = 10 * PackedRows::kPanel;
  const std::vector<BlockLevel>& block = view.blocks.front();
  const int64_t gates = static_cast<int64_t>(InputLayers(view, block.front()).size());
  const int64_t row_bytes =
      gates * view.sizes.end(levels - 1) * static_cast<int64_t>(sizeof(float));
  if (gates == 0 || view.item_rows > most_bytes / row_bytes) return nullptr;
  auto table = std::make_unique<InputTable>();
  int widest = 0;
  for (int level = 0; level < levels; ++level) {
    const int width = view.sizes.width(level);
    widest = std::max(widest, width);
    Gates& values = table->values_.emplace_back();
    for (int64_t gate = 0; gate < gates; ++gate) {
      values.push_back(
          std::make_unique_for_overwrite<float[]>(static_cast<size_t>(view.item_rows * width)));
    }
  }
  FloatArena arena;
  for (int64_t begin = 0; begin < view.item_rows; begin += kItemsAtOnce) {
    const int64_t rows = std::min(kItemsAtOnce, view.item_rows - begin);
    arena.Clear();
    LevelMatrix n(rows, rows * widest, view.sizes, levels, LevelMatrix::Layout::kManyRows, arena);
    float* x = arena.Allocate(widest);
    for (int level = 0; level < levels; ++level) {
      const int width = view.sizes.width(level);
      const BlockLevel& weights = block[static_cast<size_t>(level)];
      const float* items = view.items[static_cast<size_t>(level)].data() + begin * width;
      n.Start(level);
      for (int64_t r = 0; r < rows; ++r) {
        std::transform(items + r * width, items + (r + 1) * width, x,
                       [&](float value) { return value * view.architecture.input_scale; });
        NormalizeLevel(x, weights.norm1_scale, weights.norm1_shift, n.at(r));
      }
      n.Complete(rows);
      const std::vector<const LinearLevel*> layers = InputLayers(view, weights);
      for (size_t gate = 0; gate < layers.size(); ++gate) {
        float* out = table->values_[static_cast<size_t>(level)][gate].get() + begin * width;
        n.Multiply(*layers[gate], view.sizes.end(level), Into::kSet, out, width, width);
      }
    }
  }
  return table;
}

}  // namespace nestrec
