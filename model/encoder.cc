#include "model/encoder.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/guard.h"

namespace nestrec {
namespace {

constexpr float kNormEpsilon = 1e-5f;

// y[:, :w] = x[:, :s] W^T + b for `rows` rows; ldx and ldy are the rows' strides.
void Apply(const LinearLevel& level, int64_t rows, const float* x, int64_t ldx, int columns,
           float* y, int64_t ldy, int width, bool accumulate) {
  if (!level.bias.empty()) {
    for (int64_t r = 0; r < rows; ++r) {
      if (accumulate) {
        for (int c = 0; c < width; ++c) y[r * ldy + c] += level.bias[c];
      } else {
        std::copy_n(level.bias.data(), width, y + r * ldy);
      }
    }
  }
  const float beta = accumulate || !level.bias.empty() ? 1.0f : 0.0f;
  if (rows == 1) {
    cblas_sgemv(CblasRowMajor, CblasNoTrans, width, columns, 1.0f, level.weight.data(), columns, x,
                1, beta, y, 1);
  } else {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(rows), width, columns,
                1.0f, x, static_cast<int>(ldx), level.weight.data(), columns, beta, y,
                static_cast<int>(ldy));
  }
}

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

// One Encode call. Positions of all histories are packed row after row, without padding: row p of a
// history is its p-th item. The last block's output is needed at each history's last position
// alone, so from its recurrence on there is one row per history.
class Encoder::Run {
 public:
  Run(const Encoder& encoder, std::span<const History> histories, int levels)
      : encoder_(encoder), dim_(encoder.view_.sizes.end(levels - 1)) {
    begins_.push_back(0);
    for (const History& history : histories) {
      const size_t count = std::min(history.size(), static_cast<size_t>(encoder.view_.max_len));
      const History last = history.last(count);
      tokens_.insert(tokens_.end(), last.begin(), last.end());
      if (count == 0) tokens_.push_back(0);
      begins_.push_back(static_cast<int64_t>(tokens_.size()));
    }
    const int64_t positions = static_cast<int64_t>(tokens_.size());
    input_.resize(static_cast<size_t>(positions * dim_));
    const size_t blocks = encoder.view_.blocks.size();
    for (size_t b = 0; b < blocks; ++b) {
      const int64_t rows = b + 1 == blocks ? histories_count() : positions;
      BlockBuffers& buffers = blocks_.emplace_back();
      buffers.rows = rows;
      buffers.norm1.resize(static_cast<size_t>(positions * dim_));
      for (std::vector<float>* matrix : {&buffers.h_re, &buffers.h_im, &buffers.middle,
                                         &buffers.norm2, &buffers.gated, &buffers.output}) {
        matrix->resize(static_cast<size_t>(rows * dim_));
      }
    }
  }

  // REQUIRES: all levels below are computed.
  void ComputeLevel(int level) {
    const NestedSizes& sizes = encoder_.view_.sizes;
    const int begin = sizes.begin(level);
    const int width = sizes.width(level);
    const std::span<const float> items = encoder_.view_.items[static_cast<size_t>(level)];
    for (size_t p = 0; p < tokens_.size(); ++p) {
      std::copy_n(items.data() + static_cast<int64_t>(tokens_[p]) * width, width,
                  input_.data() + static_cast<int64_t>(p) * dim_ + begin);
    }
    const std::vector<float>* x = &input_;
    for (size_t b = 0; b < blocks_.size(); ++b) {
      ComputeBlockLevel(b, level, *x);
      x = &blocks_[b].output;
    }
  }

  // [histories, dim]
  std::span<const float> output() const {
    return blocks_.empty() ? std::span<const float>()
                           : std::span<const float>(blocks_.back().output);
  }

 private:
  struct BlockBuffers {
    int64_t rows = 0;
    std::vector<float> norm1;                         // [positions, dim]
    std::vector<float> h_re, h_im;                    // [rows, dim]
    std::vector<float> middle, norm2, gated, output;  // [rows, dim]
  };

  int64_t histories_count() const { return static_cast<int64_t>(begins_.size()) - 1; }

  void ComputeBlockLevel(size_t block, int level, const std::vector<float>& x) {
    const NestedSizes& sizes = encoder_.view_.sizes;
    const int begin = sizes.begin(level);
    const int end = sizes.end(level);
    const int width = sizes.width(level);
    const BlockLevel& weights = encoder_.view_.blocks[block][static_cast<size_t>(level)];
    BlockBuffers& buffers = blocks_[block];
    const int64_t positions = static_cast<int64_t>(tokens_.size());
    for (int64_t p = 0; p < positions; ++p) {
      NormalizeLevel(x.data() + p * dim_ + begin, weights.norm1_scale, weights.norm1_shift,
                     buffers.norm1.data() + p * dim_ + begin);
    }
    std::vector<float>& u_re = scratch_re_;
    std::vector<float>& u_im = scratch_im_;
    u_re.resize(static_cast<size_t>(positions * width));
    u_im.resize(static_cast<size_t>(positions * width));
    Apply(weights.b_re, positions, buffers.norm1.data(), dim_, end, u_re.data(), width, width,
          false);
    Apply(weights.b_im, positions, buffers.norm1.data(), dim_, end, u_im.data(), width, width,
          false);
    Scan(block, begin, width);

    // middle = x + Re(C h + b_C), at the rows that go on.
    const bool last_only = buffers.rows != positions;
    float* middle = buffers.middle.data() + begin;
    Apply(weights.c_im, buffers.rows, buffers.h_im.data(), dim_, end, middle, dim_, width, false);
    for (int64_t r = 0; r < buffers.rows; ++r) {
      const int64_t row = last_only ? begins_[static_cast<size_t>(r) + 1] - 1 : r;
      for (int c = 0; c < width; ++c) {
        middle[r * dim_ + c] =
            x[static_cast<size_t>(row * dim_ + begin + c)] - middle[r * dim_ + c];
      }
    }
    Apply(weights.c_re, buffers.rows, buffers.h_re.data(), dim_, end, middle, dim_, width, true);
    for (int64_t r = 0; r < buffers.rows; ++r) {
      NormalizeLevel(middle + r * dim_, weights.norm2_scale, weights.norm2_shift,
                     buffers.norm2.data() + r * dim_ + begin);
    }
    // output = middle + W2(SiLU(Wg u) * W1 u)
    u_re.resize(static_cast<size_t>(buffers.rows * width));
    Apply(weights.wg, buffers.rows, buffers.norm2.data(), dim_, end, u_re.data(), width, width,
          false);
    Apply(weights.w1, buffers.rows, buffers.norm2.data(), dim_, end, buffers.gated.data() + begin,
          dim_, width, false);
    for (int64_t r = 0; r < buffers.rows; ++r) {
      float* gated = buffers.gated.data() + r * dim_ + begin;
      for (int c = 0; c < width; ++c) gated[c] *= Silu(u_re[static_cast<size_t>(r * width + c)]);
    }
    float* output = buffers.output.data() + begin;
    for (int64_t r = 0; r < buffers.rows; ++r)
      std::copy_n(middle + r * dim_, width, output + r * dim_);
    Apply(weights.w2, buffers.rows, buffers.gated.data(), dim_, end, output, dim_, width, true);
  }

  // h_t = lambda * h_{t-1} + gamma * u_t over each history, for one level's columns.
  void Scan(size_t block, int begin, int width) {
    BlockBuffers& buffers = blocks_[block];
    const Recurrence& recurrence = encoder_.recurrences_[block];
    const float* lambda_re = recurrence.lambda_re.data() + begin;
    const float* lambda_im = recurrence.lambda_im.data() + begin;
    const float* gamma = recurrence.gamma.data() + begin;
    const bool last_only = buffers.rows != static_cast<int64_t>(tokens_.size());
    state_re_.resize(static_cast<size_t>(width));
    state_im_.resize(static_cast<size_t>(width));
    for (size_t h = 0; h + 1 < begins_.size(); ++h) {
      std::fill(state_re_.begin(), state_re_.end(), 0.0f);
      std::fill(state_im_.begin(), state_im_.end(), 0.0f);
      for (int64_t p = begins_[h]; p < begins_[h + 1]; ++p) {
        const float* u_re = scratch_re_.data() + p * width;
        const float* u_im = scratch_im_.data() + p * width;
        for (int c = 0; c < width; ++c) {
          const float re =
              lambda_re[c] * state_re_[c] - lambda_im[c] * state_im_[c] + gamma[c] * u_re[c];
          const float im =
              lambda_re[c] * state_im_[c] + lambda_im[c] * state_re_[c] + gamma[c] * u_im[c];
          state_re_[c] = re;
          state_im_[c] = im;
        }
        if (!last_only || p + 1 == begins_[h + 1]) {
          const int64_t row = last_only ? static_cast<int64_t>(h) : p;
          std::copy_n(state_re_.data(), width, buffers.h_re.data() + row * dim_ + begin);
          std::copy_n(state_im_.data(), width, buffers.h_im.data() + row * dim_ + begin);
        }
      }
    }
  }

  const Encoder& encoder_;
  const int64_t dim_;
  std::vector<int32_t> tokens_;  // [positions]
  std::vector<int64_t> begins_;  // [histories + 1], rows of each history
  std::vector<float> input_;     // [positions, dim]: item embeddings
  std::vector<BlockBuffers> blocks_;
  std::vector<float> scratch_re_, scratch_im_, state_re_, state_im_;
};

Encoder::Encoder(ModelView view, std::vector<Recurrence> recurrences,
                 std::shared_ptr<const void> owner)
    : view_(std::move(view)), recurrences_(std::move(recurrences)), owner_(std::move(owner)) {}

absl::StatusOr<std::unique_ptr<const Encoder>> Encoder::Create(ModelView view,
                                                               std::shared_ptr<const void> owner) {
  if (view.blocks.empty()) return absl::InvalidArgumentError("the model has no blocks");
  std::vector<Recurrence> recurrences;
  for (const std::vector<BlockLevel>& block : view.blocks) {
    Recurrence& recurrence = recurrences.emplace_back();
    for (const BlockLevel& level : block) {
      for (size_t c = 0; c < level.nu_log.size(); ++c) {
        const float radius = std::exp(-std::exp(level.nu_log[c]));
        const float phase = std::exp(level.theta_log[c]);
        recurrence.lambda_re.push_back(radius * std::cos(phase));
        recurrence.lambda_im.push_back(radius * std::sin(phase));
        recurrence.gamma.push_back(std::exp(level.gamma_log[c]));
      }
    }
  }
  return std::unique_ptr<const Encoder>(
      new Encoder(std::move(view), std::move(recurrences), std::move(owner)));
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
