#include "model/step_batch.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "model/row_products.h"

namespace nestrec {
namespace {

constexpr float kNormEpsilon = 1e-5f;

// The sum of f(x) over `width` values in double precision, in eight parts that need not wait for
// each other.
template <typename Function>
double SumOf(const float* x, int64_t width, Function&& f) {
  std::array<double, 8> parts{};
  int64_t c = 0;
  for (; c + 8 <= width; c += 8) {
    for (size_t part = 0; part < 8; ++part) parts[part] += f(x[c + static_cast<int64_t>(part)]);
  }
  for (; c < width; ++c) parts[0] += f(x[c]);
  return ((parts[0] + parts[1]) + (parts[2] + parts[3])) +
         ((parts[4] + parts[5]) + (parts[6] + parts[7]));
}

// out = (x - mean) / sqrt(variance + eps) * scale + shift over one level's columns.
void NormalizeLevel(const float* x, std::span<const float> scale, std::span<const float> shift,
                    float* out) {
  const auto width = static_cast<int64_t>(scale.size());
  const double mean = SumOf(x, width, [](float value) { return static_cast<double>(value); }) /
                      static_cast<double>(width);
  const auto centre = static_cast<float>(mean);
  const double squares = SumOf(x, width, [centre](float value) {
    const float centred = value - centre;
    return static_cast<double>(centred) * centred;
  });
  const float inverse =
      1.0f / std::sqrt(static_cast<float>(squares / static_cast<double>(width)) + kNormEpsilon);
  for (size_t c = 0; c < scale.size(); ++c) {
    out[c] = (x[c] - centre) * inverse * scale[c] + shift[c];
  }
}

float Silu(float x) { return x / (1.0f + std::exp(-x)); }

// y [rows, w_j] = x[:, :s_j] W_j^T + b_j, as a product to compute.
RowProduct Level(const LinearLevel& linear, int64_t rows, int64_t width, int64_t end,
                 const float* x, int64_t x_stride, float* y, int64_t y_stride) {
  return {.x = x,
          .x_stride = x_stride,
          .weight = linear.weight.data(),
          .bias = linear.bias.empty() ? nullptr : linear.bias.data(),
          .y = y,
          .y_stride = y_stride,
          .rows = rows,
          .outputs = width,
          .columns = end};
}

// What is computed in any case, and at most; nothing where all is remembered.
std::pair<int, int> LevelsToCompute(const StepJob& job) {
  return job.plan.tokens.empty() ? std::pair(0, 0) : std::pair(job.levels, job.most_levels);
}

}  // namespace

StepBatch::StepBatch(const ModelView& view, const std::vector<LruConstants>& lru,
                     std::vector<StepJob> jobs)
    : view_(view), lru_(lru), jobs_(std::move(jobs)) {
  // A prefix of the jobs is what a level concerns.
  std::stable_sort(jobs_.begin(), jobs_.end(), [](const StepJob& a, const StepJob& b) {
    return LevelsToCompute(a) > LevelsToCompute(b);
  });
  begins_.push_back(0);
  for (const StepJob& job : jobs_) {
    tokens_.insert(tokens_.end(), job.plan.tokens.begin(), job.plan.tokens.end());
    begins_.push_back(static_cast<int64_t>(tokens_.size()));
    all_hold_ = all_hold_ && job.plan.hold;
  }
  if (tokens_.empty()) return;
  int levels = 0;
  for (const StepJob& job : jobs_) levels = std::max(levels, LevelsToCompute(job).second);
  dim_ = view_.sizes.end(levels - 1);
  const auto rows = static_cast<int64_t>(tokens_.size());
  const auto matrix = [this](int64_t of_rows) { return static_cast<size_t>(of_rows * dim_); };
  items_.resize(matrix(rows));
  blocks_.resize(view_.blocks.size());
  for (Block& block : blocks_) {
    // The last block's output is needed at each session's last row alone.
    block.last_only = &block == &blocks_.back();
    const int64_t going_on = block.last_only ? static_cast<int64_t>(jobs_.size()) : rows;
    block.norm1.resize(matrix(rows));
    for (std::vector<float>* values :
         {&block.h_re, &block.h_im, &block.middle, &block.norm2, &block.gated, &block.output}) {
      values->resize(matrix(going_on));
    }
  }
}

void StepBatch::Run(GoOn go_on) {
  active_jobs_ = jobs_.size();
  for (StepJob& job : jobs_) *job.finished = job.plan.tokens.empty() ? job.most_levels : 0;
  for (int level = 0; Choose(level, go_on); ++level) {
    const int planes = 2 * static_cast<int>(blocks_.size()) + 1;
    for (size_t j = 0; j < active_jobs_; ++j) {
      jobs_[j].state->Grow(view_.sizes, level + 1, planes);
      *jobs_[j].finished = level + 1;
    }
    ComputeLevel(level);
  }
  for (size_t j = 0; j < jobs_.size(); ++j) Finish(jobs_[j], static_cast<int64_t>(j));
}

bool StepBatch::Choose(int level, GoOn go_on) {
  const auto goes_on = [&](const StepJob& job) {
    const auto [sure, most] = LevelsToCompute(job);
    return sure > level || (most > level && go_on(job.row, level));
  };
  size_t active = 0;
  while (active < active_jobs_ && goes_on(jobs_[active])) ++active;
  active_jobs_ = active;
  return active > 0;
}

void StepBatch::ComputeLevel(int level) {
  const int64_t begin = view_.sizes.begin(level);
  for (size_t j = 0; j < active_jobs_; ++j) {
    for (int64_t row = begins_[j]; row < begins_[j + 1]; ++row) {
      CopyItem(jobs_[j].item_rows, tokens_[static_cast<size_t>(row)], level,
               items_.data() + row * dim_ + begin);
    }
  }
  const std::vector<float>* x = &items_;
  for (size_t b = 0; b < blocks_.size(); ++b) {
    ComputeBlockLevel(b, level, *x);
    x = &blocks_[b].output;
  }
  if (!view_.architecture.final_norm) return;
  const NormLevel& norm = view_.final_norm[static_cast<size_t>(level)];
  for (size_t j = 0; j < active_jobs_; ++j) {
    float* row = blocks_.back().output.data() + static_cast<int64_t>(j) * dim_ + begin;
    NormalizeLevel(row, norm.scale, norm.shift, row);
  }
}

void StepBatch::CopyItem(const ItemRows* item_rows, int32_t item, int level, float* out) const {
  const int64_t width = view_.sizes.width(level);
  const float* own = item_rows != nullptr ? item_rows->RowOf(item) : nullptr;
  const float* values = own != nullptr
                            ? own + view_.sizes.begin(level)
                            : view_.items[static_cast<size_t>(level)].data() + item * width;
  const float scale = view_.architecture.input_scale;
  std::transform(values, values + width, out, [scale](float value) { return scale * value; });
}

void StepBatch::ComputeBlockLevel(size_t block, int level, const std::vector<float>& x) {
  const int64_t begin = view_.sizes.begin(level);
  const int64_t end = view_.sizes.end(level);
  const int64_t width = end - begin;
  const BlockLevel& weights = view_.blocks[block][static_cast<size_t>(level)];
  Block& buffers = blocks_[block];
  const int64_t rows = begins_[active_jobs_];
  if (!all_hold_) {
    for (int64_t row = 0; row < rows; ++row) {
      NormalizeLevel(x.data() + row * dim_ + begin, weights.norm1_scale, weights.norm1_shift,
                     buffers.norm1.data() + row * dim_ + begin);
    }
    u_re_.resize(static_cast<size_t>(rows * width));
    u_im_.resize(static_cast<size_t>(rows * width));
    MultiplyRows(
        Level(weights.lru.b_re, rows, width, end, buffers.norm1.data(), dim_, u_re_.data(), width));
    MultiplyRows(
        Level(weights.lru.b_im, rows, width, end, buffers.norm1.data(), dim_, u_im_.data(), width));
  }
  Scan(block, level);

  // middle = x + Re(C h + b_C)
  const int64_t going_on = buffers.last_only ? static_cast<int64_t>(active_jobs_) : rows;
  float* middle = buffers.middle.data() + begin;
  for (int64_t r = 0; r < going_on; ++r) {
    const int64_t row = buffers.last_only ? begins_[static_cast<size_t>(r) + 1] - 1 : r;
    std::copy_n(x.data() + row * dim_ + begin, width, middle + r * dim_);
  }
  AddProductRows(
      Level(weights.lru.c_re, going_on, width, end, buffers.h_re.data(), dim_, middle, dim_));
  SubtractProductRows(
      Level(weights.lru.c_im, going_on, width, end, buffers.h_im.data(), dim_, middle, dim_));
  for (int64_t r = 0; r < going_on; ++r) {
    NormalizeLevel(middle + r * dim_, weights.norm2_scale, weights.norm2_shift,
                   buffers.norm2.data() + r * dim_ + begin);
  }

  // output = middle + W2(SiLU(Wg u) * W1 u), or W2(ReLU(W1 u))
  float* gated = buffers.gated.data() + begin;
  MultiplyRows(Level(weights.w1, going_on, width, end, buffers.norm2.data(), dim_, gated, dim_));
  const bool gates = view_.architecture.feed_forward == FeedForward::kGated;
  if (gates) {
    u_re_.resize(static_cast<size_t>(going_on * width));
    MultiplyRows(
        Level(weights.wg, going_on, width, end, buffers.norm2.data(), dim_, u_re_.data(), width));
  }
  float* output = buffers.output.data() + begin;
  for (int64_t r = 0; r < going_on; ++r) {
    for (int64_t c = 0; c < width; ++c) {
      float& value = gated[r * dim_ + c];
      value =
          gates ? value * Silu(u_re_[static_cast<size_t>(r * width + c)]) : std::max(value, 0.0f);
    }
    std::copy_n(middle + r * dim_, width, output + r * dim_);
  }
  AddProductRows(Level(weights.w2, going_on, width, end, buffers.gated.data(), dim_, output, dim_));
}

void StepBatch::Scan(size_t block, int level) {
  Block& buffers = blocks_[block];
  const int64_t begin = view_.sizes.begin(level);
  const int64_t width = view_.sizes.width(level);
  const int plane = 2 * static_cast<int>(block);
  for (size_t j = 0; j < active_jobs_; ++j) {
    const StepJob& job = jobs_[j];
    const StepPlan& plan = job.plan;
    StartFrom(block, level, job);
    const auto keep = [&] {
      if (!plan.keep) return;
      std::copy(h_.re.begin(), h_.re.end(), job.state->plane(level, plane).begin());
      std::copy(h_.im.begin(), h_.im.end(), job.state->plane(level, plane + 1).begin());
    };
    const auto put = [&](int64_t row) {
      std::copy(h_.re.begin(), h_.re.end(), buffers.h_re.data() + row * dim_ + begin);
      std::copy(h_.im.begin(), h_.im.end(), buffers.h_im.data() + row * dim_ + begin);
    };
    if (plan.kept_tokens == 0) keep();
    const int64_t first = begins_[j];
    const int64_t rows = begins_[j + 1] - first;
    for (int64_t t = 0; t < rows; ++t) {
      if (!plan.hold) {
        Advance(block, level, u_re_.data() + (first + t) * width,
                u_im_.data() + (first + t) * width);
      }
      if (t + 1 == plan.kept_tokens) keep();
      if (!buffers.last_only) {
        put(first + t);
      } else if (t + 1 == rows) {
        put(static_cast<int64_t>(j));
      }
    }
  }
}

void StepBatch::StartFrom(size_t block, int level, const StepJob& job) {
  const auto width = static_cast<size_t>(view_.sizes.width(level));
  const int plane = 2 * static_cast<int>(block);
  const auto load = [&](bool from_zero) {
    if (from_zero) {
      h_.re.assign(width, 0.0f);
      h_.im.assign(width, 0.0f);
      return;
    }
    const std::span<const float> re = std::as_const(*job.state).plane(level, plane);
    const std::span<const float> im = std::as_const(*job.state).plane(level, plane + 1);
    h_.re.assign(re.begin(), re.end());
    h_.im.assign(im.begin(), im.end());
  };
  for (const StepPlan::CatchUp& catch_up : job.plan.catch_ups) {
    if (catch_up.level != level) continue;
    load(catch_up.from_zero);
    CatchUp(job, catch_up.tokens, level);
    return;
  }
  load(job.plan.from_zero);
}

void StepBatch::CatchUp(const StepJob& job, std::span<const int32_t> tokens, int level) {
  // The first block reads the items themselves, and this level's rows all narrower columns.
  const auto rows = static_cast<int64_t>(tokens.size());
  const int64_t width = view_.sizes.width(level);
  const int64_t dim = view_.sizes.end(level);
  std::vector<float> norm(static_cast<size_t>(rows * dim));
  for (int narrow = 0; narrow <= level; ++narrow) {
    const auto at = static_cast<size_t>(narrow);
    const BlockLevel& weights = view_.blocks[0][at];
    for (int64_t row = 0; row < rows; ++row) {
      float* out = norm.data() + row * dim + view_.sizes.begin(narrow);
      CopyItem(job.item_rows, tokens[static_cast<size_t>(row)], narrow, out);
      NormalizeLevel(out, weights.norm1_scale, weights.norm1_shift, out);
    }
  }
  const BlockLevel& weights = view_.blocks[0][static_cast<size_t>(level)];
  Complex u{.re = std::vector<float>(static_cast<size_t>(rows * width)),
            .im = std::vector<float>(static_cast<size_t>(rows * width))};
  MultiplyRows(Level(weights.lru.b_re, rows, width, dim, norm.data(), dim, u.re.data(), width));
  MultiplyRows(Level(weights.lru.b_im, rows, width, dim, norm.data(), dim, u.im.data(), width));
  for (int64_t row = 0; row < rows; ++row) {
    Advance(0, level, u.re.data() + row * width, u.im.data() + row * width);
  }
}

void StepBatch::Advance(size_t block, int level, const float* u_re, const float* u_im) {
  const int64_t begin = view_.sizes.begin(level);
  const LruConstants& factors = lru_[block];
  const float* lambda_re = factors.lambda_re.data() + begin;
  const float* lambda_im = factors.lambda_im.data() + begin;
  const float* gamma = factors.gamma.data() + begin;
  for (size_t c = 0; c < h_.re.size(); ++c) {
    const float re = h_.re[c];
    const float im = h_.im[c];
    h_.re[c] = lambda_re[c] * re - lambda_im[c] * im + gamma[c] * u_re[c];
    h_.im[c] = lambda_re[c] * im + lambda_im[c] * re + gamma[c] * u_im[c];
  }
}

void StepBatch::Finish(StepJob& job, int64_t row) {
  const StepPlan& plan = job.plan;
  const int z_plane = 2 * static_cast<int>(view_.blocks.size());
  for (int level = 0; level < *job.finished; ++level) {
    const int64_t begin = view_.sizes.begin(level);
    const int64_t width = view_.sizes.width(level);
    const std::span<float> kept = job.state->plane(level, z_plane);
    const std::span<float> z =
        job.z.subspan(static_cast<size_t>(begin), static_cast<size_t>(width));
    if (plan.way == StepWay::kRemembered) {
      std::copy(kept.begin(), kept.end(), z.begin());
    } else {
      const float* computed = blocks_.back().output.data() + row * dim_ + begin;
      std::copy_n(computed, width, z.begin());
      if (plan.keep && plan.keep_z) std::copy_n(computed, width, kept.begin());
    }
    if (!plan.keep) continue;
    const auto caught_up =
        std::find_if(plan.catch_ups.begin(), plan.catch_ups.end(),
                     [&](const StepPlan::CatchUp& catch_up) { return catch_up.level == level; });
    SessionState::Absorbed absorbed = job.state->absorbed(level);
    const bool moved = plan.from_zero || plan.kept_tokens > 0 || caught_up != plan.catch_ups.end();
    absorbed.has_z = plan.keep_z || (absorbed.has_z && !moved);
    if (plan.from_zero) {
      absorbed.begin = plan.begin;
    } else if (caught_up != plan.catch_ups.end() && caught_up->from_zero) {
      absorbed.begin = caught_up->begin;
    }
    absorbed.end = job.end;
    job.state->set_absorbed(level, absorbed);
  }
}

}  // namespace nestrec
