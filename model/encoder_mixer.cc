#include "model/encoder_mixer.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace nestrec {
namespace {

float Sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

// What all mixers share: where they are and how wide.
class MixerBase : public LevelMixer {
 protected:
  explicit MixerBase(const Context& context) : context_(context) {}

  int Begin(int level) const { return context_.view->sizes.begin(level); }
  int End(int level) const { return context_.view->sizes.end(level); }
  int Width(int level) const { return context_.view->sizes.width(level); }
  const BlockLevel& Weights(int level) const {
    return context_.view->blocks[context_.block][static_cast<size_t>(level)];
  }
  const PackedHistories& histories() const { return *context_.histories; }
  LevelMatrix Matrix(int64_t rows, LevelMatrix::Layout layout) const {
    return LevelMatrix(rows, context_.level_floats, context_.view->sizes, context_.levels, layout,
                       *context_.arena);
  }
  LevelMatrix::Layout Layout() const {
    return context_.last_only ? LevelMatrix::Layout::kFewRows : LevelMatrix::Layout::kManyRows;
  }
  // The row of `out` for position p of `history`; -1 where it has none.
  int64_t OutRow(int64_t history, int64_t p) const {
    if (!context_.last_only) return p;
    return p + 1 == histories().begin(history + 1) ? history : -1;
  }
  // What the layer makes of all positions' n: [positions, w_j], one after the other.
  float* Gate(const LinearLevel& layer, int level, const LevelMatrix& n, Scratch& y) const {
    float* values = y.Room(histories().positions() * Width(level));
    n.Multiply(layer, End(level), Into::kSet, values, Width(level), Width(level));
    return values;
  }
  // The same of an input gate, which may be in a table.
  float* InputGate(size_t gate, int level, const LevelMatrix& n, Scratch& y) const {
    if (context_.inputs == nullptr) {
      return Gate(*InputLayers(*context_.view, Weights(level))[gate], level, n, y);
    }
    const int width = Width(level);
    float* values = y.Room(histories().positions() * width);
    for (int64_t p = 0; p < histories().positions(); ++p) {
      const int32_t item = histories().tokens[static_cast<size_t>(p)];
      std::copy_n(context_.inputs->Row(level, gate, item, width), width, values + p * width);
    }
    return values;
  }
  // out [rows, w_j] (+=, -=) layer of `state`.
  void AddOutput(const LinearLevel& layer, int level, const LevelMatrix& state, float* out,
                 Into into = Into::kAdd) const {
    state.Multiply(layer, End(level), into, out, Width(level), Width(level));
  }

  const Context context_;
};

class LruMixer : public MixerBase {
 public:
  explicit LruMixer(const Context& context)
      : MixerBase(context),
        h_re_(Matrix(context.rows(), Layout())),
        h_im_(Matrix(context.rows(), Layout())) {}

  void AddLevel(int level, const LevelMatrix& n, float* out) override {
    const LruLevel& weights = Weights(level).lru;
    const float* u_re = InputGate(0, level, n, u_re_);
    const float* u_im = InputGate(1, level, n, u_im_);
    h_re_.Start(level);
    h_im_.Start(level);
    Scan(Begin(level), Width(level), u_re, u_im);
    h_re_.Complete(context_.rows());
    h_im_.Complete(context_.rows());
    AddOutput(weights.c_im, level, h_im_, out, Into::kSubtract);
    AddOutput(weights.c_re, level, h_re_, out);
  }

 private:
  // h_t = lambda * h_{t-1} + gamma * u_t over each history.
  void Scan(int begin, int width, const float* all_u_re, const float* all_u_im) {
    const float* lambda_re = context_.lru->lambda_re.data() + begin;
    const float* lambda_im = context_.lru->lambda_im.data() + begin;
    const float* gamma = context_.lru->gamma.data() + begin;
    state_re_.resize(static_cast<size_t>(width));
    state_im_.resize(static_cast<size_t>(width));
    for (int64_t h = 0; h < histories().histories(); ++h) {
      std::fill(state_re_.begin(), state_re_.end(), 0.0f);
      std::fill(state_im_.begin(), state_im_.end(), 0.0f);
      for (int64_t p = histories().begin(h); p < histories().begin(h + 1); ++p) {
        const float* u_re = all_u_re + p * width;
        const float* u_im = all_u_im + p * width;
        for (int c = 0; c < width; ++c) {
          const float re =
              lambda_re[c] * state_re_[c] - lambda_im[c] * state_im_[c] + gamma[c] * u_re[c];
          const float im =
              lambda_re[c] * state_im_[c] + lambda_im[c] * state_re_[c] + gamma[c] * u_im[c];
          state_re_[c] = re;
          state_im_[c] = im;
        }
        if (const int64_t row = OutRow(h, p); row >= 0) {
          std::copy_n(state_re_.data(), width, h_re_.at(row));
          std::copy_n(state_im_.data(), width, h_im_.at(row));
        }
      }
    }
  }

  LevelMatrix h_re_, h_im_;                                // [rows, dim]
  Scratch u_re_{*context_.arena}, u_im_{*context_.arena};  // [positions, w_j]
  std::vector<float> state_re_, state_im_;                 // [w_j]
};

class GruMixer : public MixerBase {
 public:
  explicit GruMixer(const Context& context)
      : MixerBase(context),
        previous_(Matrix(histories().positions(), LevelMatrix::Layout::kManyRows)),
        h_(Matrix(context.rows(), Layout())),
        state_rows_(
            histories().histories(), WidestLevel(),
            context.arena->Allocate(PackedRows::Floats(histories().histories(), WidestLevel()))),
        longest_first_(static_cast<size_t>(histories().histories())) {
    std::iota(longest_first_.begin(), longest_first_.end(), 0);
    std::stable_sort(longest_first_.begin(), longest_first_.end(), [this](int64_t a, int64_t b) {
      return histories().length(a) > histories().length(b);
    });
  }

  void AddLevel(int level, const LevelMatrix& n, float* out) override {
    const GruLevel& weights = Weights(level).gru;
    reset_ = InputGate(0, level, n, reset_room_);
    update_ = InputGate(1, level, n, update_room_);
    candidate_ = InputGate(2, level, n, candidate_room_);
    // What the narrower levels' states say is known for all positions at once.
    recalled_.assign(static_cast<size_t>(histories().positions() * Width(level)), 0.0f);
    if (level > 0) {
      previous_.Shrink(histories().positions());
      AddNarrower(weights.ur, level, reset_);
      AddNarrower(weights.uu, level, update_);
      AddNarrower(weights.uc, level, recalled_.data());
    }
    previous_.Start(level);
    h_.Start(level);
    Scan(weights, level);
    previous_.Complete(histories().positions());
    h_.Complete(context_.rows());
    AddOutput(weights.o, level, h_, out);
  }

 private:
  int WidestLevel() const {
    int widest = 0;
    for (int level = 0; level < context_.levels; ++level) widest = std::max(widest, Width(level));
    return widest;
  }

  void AddNarrower(const LinearLevel& layer, int level, float* gate) const {
    previous_.Multiply(layer, Begin(level), Into::kAdd, gate, Width(level), Width(level));
  }

  // The level's own part of the recurrence: step by step, all histories that are that long at once.
  void Scan(const GruLevel& weights, int level) {
    const int width = Width(level);
    const int64_t count = histories().histories();
    std::erase_if(longest_first_, [count](int64_t history) { return history >= count; });
    const int64_t steps = histories().length(longest_first_.front());
    state_.assign(static_cast<size_t>(count * width), 0.0f);
    for (std::vector<float>* gate : {&own_reset_, &own_update_, &own_recalled_}) {
      gate->assign(state_.size(), 0.0f);
    }
    int64_t alive = count;
    for (int64_t step = 0; step < steps; ++step) {
      while (histories().length(longest_first_[static_cast<size_t>(alive - 1)]) <= step) --alive;
      if (step > 0) {
        state_rows_.Clear();
        state_rows_.Extend(state_.data(), width, alive, width);
        Own(weights.ur, level, own_reset_);
        Own(weights.uu, level, own_update_);
        Own(weights.uc, level, own_recalled_);
      }
      for (int64_t i = 0; i < alive; ++i) Step(level, step, i);
    }
  }

  void Own(const LinearLevel& layer, int level, std::vector<float>& gate) const {
    const int width = Width(level);
    MultiplyPacked({.x = &state_rows_,
                    .weight = layer.weight.data() + Begin(level),
                    .weight_stride = static_cast<int64_t>(layer.weight.size()) / width,
                    .columns = width,
                    .bias = nullptr,
                    .y = gate.data(),
                    .y_stride = width,
                    .outputs = width});
  }

  void Step(int level, int64_t step, int64_t i) {
    const int width = Width(level);
    const int64_t history = longest_first_[static_cast<size_t>(i)];
    const int64_t p = histories().begin(history) + step;
    const size_t at = static_cast<size_t>(p * width);
    const size_t own = static_cast<size_t>(i * width);
    for (size_t c = 0; c < static_cast<size_t>(width); ++c) {
      const float r = Sigmoid(reset_[at + c] + own_reset_[own + c]);
      const float u = Sigmoid(update_[at + c] + own_update_[own + c]);
      const float candidate =
          std::tanh(candidate_[at + c] + r * (recalled_[at + c] + own_recalled_[own + c]));
      state_[own + c] = candidate + u * (state_[own + c] - candidate);
    }
    const float* state = state_.data() + own;
    if (step == 0) std::fill_n(previous_.at(p), width, 0.0f);
    if (p + 1 < histories().begin(history + 1)) {
      std::copy_n(state, width, previous_.at(p + 1));
    }
    if (const int64_t row = OutRow(history, p); row >= 0) {
      std::copy_n(state, width, h_.at(row));
    }
  }

  LevelMatrix previous_;  // [positions, dim]: the state before each position
  LevelMatrix h_;         // [rows, dim]: the state after
  PackedRows state_rows_;
  std::vector<int64_t> longest_first_;
  Scratch reset_room_{*context_.arena}, update_room_{*context_.arena},
      candidate_room_{*context_.arena};
  float *reset_, *update_, *candidate_;                               // [positions, w_j]
  std::vector<float> recalled_;                                       // [positions, w_j]
  std::vector<float> state_, own_reset_, own_update_, own_recalled_;  // [histories, w_j]
};

class AttentionMixer : public MixerBase {
 public:
  explicit AttentionMixer(const Context& context)
      : MixerBase(context),
        attended_(Matrix(context.rows(), Layout())),
        last_n_(Matrix(context.last_only ? context.rows() : 0, LevelMatrix::Layout::kFewRows)) {}

  void AddLevel(int level, const LevelMatrix& n, float* out) override {
    const AttentionLevel& weights = Weights(level).attention;
    k_ = Gate(weights.k, level, n, k_room_);
    v_ = Gate(weights.v, level, n, v_room_);
    q_ = Queries(weights.q, level, n);
    attended_.Start(level);
    const int head = HeadWidth(Width(level), context_.view->architecture.head_width);
    for (int64_t h = 0; h < histories().histories(); ++h) {
      for (int column = 0; column < Width(level); column += head) Attend(level, h, column, head);
    }
    attended_.Complete(context_.rows());
    AddOutput(weights.o, level, attended_, out);
  }

 private:
  // q_ [rows, w_j]: of the positions that are asked for alone.
  const float* Queries(const LinearLevel& layer, int level, const LevelMatrix& n) {
    if (!context_.last_only) return Gate(layer, level, n, q_room_);
    const int width = Width(level);
    last_n_.Start(level);
    for (int64_t h = 0; h < histories().histories(); ++h) {
      std::copy_n(n.at(histories().begin(h + 1) - 1), width, last_n_.at(h));
    }
    last_n_.Complete(context_.rows());
    float* q = q_room_.Room(context_.rows() * width);
    last_n_.Multiply(layer, End(level), Into::kSet, q, width, width);
    return q;
  }

  // One head of one history: columns [column, column + head) of the level.
  void Attend(int level, int64_t history, int column, int head) {
    const int width = Width(level);
    const int64_t length = histories().length(history);
    const int64_t queries = context_.last_only ? 1 : length;
    const int64_t first_row = context_.last_only ? history : histories().begin(history);
    const float* keys = k_ + histories().begin(history) * width + column;
    const float* values = v_ + histories().begin(history) * width + column;
    shares_.resize(static_cast<size_t>(queries * length));
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(queries),
                static_cast<int>(length), head, 1.0f / std::sqrt(static_cast<float>(head)),
                q_ + first_row * width + column, width, keys, width, 0.0f, shares_.data(),
                static_cast<int>(length));
    for (int64_t i = 0; i < queries; ++i) {
      float* row = shares_.data() + i * length;
      const int64_t seen = context_.last_only ? length : i + 1;
      const float highest = *std::max_element(row, row + seen);
      float sum = 0;
      for (int64_t t = 0; t < seen; ++t) sum += row[t] = std::exp(row[t] - highest);
      for (int64_t t = 0; t < seen; ++t) row[t] /= sum;
      std::fill(row + seen, row + length, 0.0f);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, static_cast<int>(queries), head,
                static_cast<int>(length), 1.0f, shares_.data(), static_cast<int>(length), values,
                width, 0.0f, attended_.at(first_row) + column,
                static_cast<int>(attended_.stride()));
  }

  LevelMatrix attended_;  // [rows, dim]
  LevelMatrix last_n_;    // [histories, dim]: n at the last positions
  Scratch q_room_{*context_.arena}, k_room_{*context_.arena}, v_room_{*context_.arena};
  const float *q_, *k_, *v_;   // [rows, w_j], [positions, w_j]
  std::vector<float> shares_;  // [queries, length] of one head
};

}  // namespace

LruConstants LruConstantsOf(const std::vector<BlockLevel>& block) {
  LruConstants constants;
  for (const BlockLevel& level : block) {
    for (size_t c = 0; c < level.lru.nu_log.size(); ++c) {
      const float radius = std::exp(-std::exp(level.lru.nu_log[c]));
      const float phase = std::exp(level.lru.theta_log[c]);
      constants.lambda_re.push_back(radius * std::cos(phase));
      constants.lambda_im.push_back(radius * std::sin(phase));
      constants.gamma.push_back(std::exp(level.lru.gamma_log[c]));
    }
  }
  return constants;
}

std::unique_ptr<LevelMixer> LevelMixer::Create(const Context& context) {
  switch (context.view->architecture.mixer) {
    case Mixer::kLru:
      return std::make_unique<LruMixer>(context);
    case Mixer::kGru:
      return std::make_unique<GruMixer>(context);
    case Mixer::kAttention:
      return std::make_unique<AttentionMixer>(context);
  }
  return nullptr;
}

}  // namespace nestrec
