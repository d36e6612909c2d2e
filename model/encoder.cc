#include "model/encoder.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/guard.h"
#include "model/encoder_mixer.h"

namespace nestrec {
namespace {

constexpr float kNormEpsilon = 1e-5f;

// out = (x - mean) / sqrt(variance + eps) * scale + shift over one level's columns.
void NormalizeLevel(const float* x, std::span<const float> scale, std::span<const float> shift,
                    float* out) {
  const int width = static_cast<int>(scale.size());
  double sum = 0;
  for (int c = 0; c < width; ++c) sum += x[c];
  const float mean = static_cast<float>(sum / width);
  double squares = 0;
  for (int c = 0; c < width; ++c) {
    const float centred = x[c] - mean;
    squares += static_cast<double>(centred) * centred;
  }
  const float inverse = 1.0f / std::sqrt(static_cast<float>(squares / width) + kNormEpsilon);
  for (int c = 0; c < width; ++c) out[c] = (x[c] - mean) * inverse * scale[c] + shift[c];
}

float Silu(float x) { return x / (1.0f + std::exp(-x)); }

}  // namespace

// One Encode call. The last block's output is needed at each history's last position alone, so from
// its mixer on there is one row per history.
class Encoder::Run {
 public:
  Run(const Encoder& encoder, std::span<const History> histories, int levels)
      : encoder_(encoder), dim_(encoder.view_.sizes.end(levels - 1)) {
    packed_.begins.push_back(0);
    for (const History& history : histories) {
      const size_t count = std::min(history.size(), static_cast<size_t>(encoder.view_.max_len));
      const History last = history.last(count);
      packed_.tokens.insert(packed_.tokens.end(), last.begin(), last.end());
      if (count == 0) packed_.tokens.push_back(0);
      packed_.begins.push_back(packed_.positions());
    }
    input_.resize(static_cast<size_t>(packed_.positions() * dim_));
    const size_t blocks = encoder.view_.blocks.size();
    for (size_t b = 0; b < blocks; ++b) {
      BlockBuffers& buffers = blocks_.emplace_back();
      const LevelMixer::Context context = {.view = &encoder.view_,
                                           .block = b,
                                           .lru = &encoder.lru_[b],
                                           .histories = &packed_,
                                           .dim = dim_,
                                           .last_only = b + 1 == blocks};
      buffers.mixer = LevelMixer::Create(context);
      buffers.last_only = context.last_only;
      buffers.rows = context.rows();
      buffers.norm1.resize(static_cast<size_t>(packed_.positions() * dim_));
      for (std::vector<float>* matrix :
           {&buffers.middle, &buffers.norm2, &buffers.gated, &buffers.output}) {
        matrix->resize(static_cast<size_t>(buffers.rows * dim_));
      }
    }
  }

  // REQUIRES: all levels below are computed.
  void ComputeLevel(int level) {
    FillInput(level);
    const std::vector<float>* x = &input_;
    for (size_t b = 0; b < blocks_.size(); ++b) {
      ComputeBlockLevel(b, level, *x);
      x = &blocks_[b].output;
    }
    if (encoder_.view_.architecture.final_norm) {
      const NormLevel& norm = encoder_.view_.final_norm[static_cast<size_t>(level)];
      BlockBuffers& last = blocks_.back();
      for (int64_t r = 0; r < last.rows; ++r) {
        float* row = last.output.data() + r * dim_ + encoder_.view_.sizes.begin(level);
        NormalizeLevel(row, norm.scale, norm.shift, row);
      }
    }
  }

  // [histories, dim]
  std::span<const float> output() const { return blocks_.back().output; }

 private:
  struct BlockBuffers {
    std::unique_ptr<LevelMixer> mixer;
    bool last_only = false;
    int64_t rows = 0;
    std::vector<float> norm1;                         // [positions, dim]
    std::vector<float> middle, norm2, gated, output;  // [rows, dim]
  };

  // input = input_scale * items + positions
  void FillInput(int level) {
    const ModelView& view = encoder_.view_;
    const int begin = view.sizes.begin(level);
    const int width = view.sizes.width(level);
    const float* items = view.items[static_cast<size_t>(level)].data();
    const float* positions = view.positions[static_cast<size_t>(level)].data();
    const float scale = view.architecture.input_scale;
    for (int64_t h = 0; h < packed_.histories(); ++h) {
      for (int64_t p = packed_.begin(h); p < packed_.begin(h + 1); ++p) {
        const int64_t item = packed_.tokens[static_cast<size_t>(p)];
        float* row = input_.data() + p * dim_ + begin;
        std::copy_n(items + item * width, width, row);
        if (scale != 1.0f) {
          for (int c = 0; c < width; ++c) row[c] *= scale;
        }
        if (!view.architecture.has_positions()) continue;
        const float* position = positions + (p - packed_.begin(h)) * width;
        for (int c = 0; c < width; ++c) row[c] += position[c];
      }
    }
  }

  void ComputeBlockLevel(size_t block, int level, const std::vector<float>& x) {
    const NestedSizes& sizes = encoder_.view_.sizes;
    const int begin = sizes.begin(level);
    const int width = sizes.width(level);
    const BlockLevel& weights = encoder_.view_.blocks[block][static_cast<size_t>(level)];
    BlockBuffers& buffers = blocks_[block];
    for (int64_t p = 0; p < packed_.positions(); ++p) {
      NormalizeLevel(x.data() + p * dim_ + begin, weights.norm1_scale, weights.norm1_shift,
                     buffers.norm1.data() + p * dim_ + begin);
    }
    // middle = x + mixer(norm1), at the rows that go on.
    float* middle = buffers.middle.data() + begin;
    for (int64_t r = 0; r < buffers.rows; ++r) {
      const int64_t row = buffers.last_only ? packed_.begin(r + 1) - 1 : r;
      std::copy_n(x.data() + row * dim_ + begin, width, middle + r * dim_);
    }
    buffers.mixer->AddLevel(level, buffers.norm1.data(), buffers.middle.data());
    for (int64_t r = 0; r < buffers.rows; ++r) {
      NormalizeLevel(middle + r * dim_, weights.norm2_scale, weights.norm2_shift,
                     buffers.norm2.data() + r * dim_ + begin);
    }
    FeedForwardInner(weights, level, buffers);
    // output = middle + W2 gated
    float* output = buffers.output.data() + begin;
    for (int64_t r = 0; r < buffers.rows; ++r)
      std::copy_n(middle + r * dim_, width, output + r * dim_);
    Apply(weights.w2, {.rows = buffers.rows,
                       .x = buffers.gated.data(),
                       .ldx = dim_,
                       .y = output,
                       .ldy = dim_,
                       .width = width,
                       .columns = sizes.end(level),
                       .accumulate = true});
  }

  // gated = SiLU(Wg norm2) * W1 norm2, or ReLU(W1 norm2)
  void FeedForwardInner(const BlockLevel& weights, int level, BlockBuffers& buffers) {
    const int begin = encoder_.view_.sizes.begin(level);
    const int width = encoder_.view_.sizes.width(level);
    Product product = {.rows = buffers.rows,
                       .x = buffers.norm2.data(),
                       .ldx = dim_,
                       .y = buffers.gated.data() + begin,
                       .ldy = dim_,
                       .width = width,
                       .columns = encoder_.view_.sizes.end(level)};
    Apply(weights.w1, product);
    const bool gates = encoder_.view_.architecture.feed_forward == FeedForward::kGated;
    if (gates) {
      gate_.resize(static_cast<size_t>(buffers.rows * width));
      product.y = gate_.data();
      product.ldy = width;
      Apply(weights.wg, product);
    }
    for (int64_t r = 0; r < buffers.rows; ++r) {
      float* gated = buffers.gated.data() + r * dim_ + begin;
      for (int c = 0; c < width; ++c) {
        gated[c] = gates ? gated[c] * Silu(gate_[static_cast<size_t>(r * width + c)])
                         : std::max(gated[c], 0.0f);
      }
    }
  }

  const Encoder& encoder_;
  const int64_t dim_;
  PackedHistories packed_;
  std::vector<float> input_;  // [positions, dim]: what enters the first block
  std::vector<BlockBuffers> blocks_;
  std::vector<float> gate_;  // [rows, w_j]
};

Encoder::Encoder(ModelView view, std::vector<LruConstants> lru, std::shared_ptr<const void> owner)
    : view_(std::move(view)), lru_(std::move(lru)), owner_(std::move(owner)) {}

Encoder::~Encoder() = default;

absl::StatusOr<std::unique_ptr<const Encoder>> Encoder::Create(ModelView view,
                                                               std::shared_ptr<const void> owner) {
  if (view.blocks.empty()) return absl::InvalidArgumentError("the model has no blocks");
  std::vector<LruConstants> lru;
  for (const std::vector<BlockLevel>& block : view.blocks) lru.push_back(LruConstantsOf(block));
  return std::unique_ptr<const Encoder>(
      new Encoder(std::move(view), std::move(lru), std::move(owner)));
}

absl::Status Encoder::Encode(std::span<const History> histories, int levels,
                             std::span<float> z) const {
  if (levels < 1 || levels > view_.sizes.levels()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "levels: ", levels, " is outside 1..", view_.sizes.levels(), ", the levels of this model"));
  }
  const size_t expected = histories.size() * static_cast<size_t>(view_.sizes.end(levels - 1));
  if (z.size() != expected) {
    return absl::InvalidArgumentError(
        absl::StrCat("z: room for ", z.size(), " floats, but ", expected, " are needed"));
  }
  for (const History& history : histories) {
    for (const int32_t item : history) {
      if (item < 1 || item >= view_.item_rows) {
        return absl::InvalidArgumentError(
            absl::StrCat("history: item number ", item, " is outside 1..", view_.item_rows - 1));
      }
    }
  }
  if (histories.empty()) return absl::OkStatus();
  return Guard("encode", [&]() -> absl::Status {
    Run run(*this, histories, levels);
    for (int level = 0; level < levels; ++level) run.ComputeLevel(level);
    const std::span<const float> output = run.output();
    std::copy(output.begin(), output.end(), z.begin());
    return absl::OkStatus();
  });
}

}  // namespace nestrec
