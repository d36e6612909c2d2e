#include "model/network_parameters.h"

#include <torch/torch.h>

#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/model_view.h"
#include "model/nested_products.h"

namespace nestrec {
namespace {

using torch::Tensor;

// Of learned vectors that are added to others: small, so that an item starts as its content.
constexpr double kVectorDeviation = 0.02;

// [count] uniform in +-bound.
void FillUniform(Tensor tensor, double bound, Random& random) {
  float* values = tensor.data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i)
    values[i] = static_cast<float>(random.Uniform(-bound, bound));
}

Tensor NormalVectors(int64_t rows, int64_t dim, Random& random) {
  Tensor vectors = torch::empty({rows, dim});
  float* values = vectors.data_ptr<float>();
  for (int64_t i = 0; i < vectors.numel(); ++i) {
    values[i] = static_cast<float>(kVectorDeviation * random.Normal());
  }
  return vectors;
}

Tensor RaggedWeight(const NestedSizes& sizes, Random& random) {
  Tensor weight = torch::empty({RaggedWeights(sizes)});
  for (int level = 0; level < sizes.levels(); ++level) {
    FillUniform(RaggedLevel(weight, sizes, level), 1.0 / std::sqrt(sizes.end(level)), random);
  }
  return weight;
}

Tensor LevelBias(const NestedSizes& sizes, Random& random) {
  Tensor bias = torch::empty({sizes.max_dim()});
  for (int level = 0; level < sizes.levels(); ++level) {
    FillUniform(bias.narrow(0, sizes.begin(level), sizes.width(level)),
                1.0 / std::sqrt(sizes.end(level)), random);
  }
  return bias;
}

void StartLinear(const NestedSizes& sizes, Random& random, Tensor& weight, Tensor& bias) {
  weight = RaggedWeight(sizes, random);
  bias = LevelBias(sizes, random);
}

// lambda on the ring r_min..r_max with any phase; gamma = sqrt(1 - |lambda|^2).
void StartRing(const NetworkOptions& options, Random& random, LruParameters& lru) {
  const int dim = options.sizes.max_dim();
  lru.nu_log = torch::empty({dim});
  lru.theta_log = torch::empty({dim});
  lru.gamma_log = torch::empty({dim});
  const double low = options.r_min * options.r_min;
  const double high = options.r_max * options.r_max;
  for (int c = 0; c < dim; ++c) {
    // 1 - Uniform() is in (0, 1]: neither logarithm sees a zero.
    const double squared = low + (high - low) * (1.0 - random.Uniform());
    const double phase = 2.0 * M_PI * (1.0 - random.Uniform());
    lru.nu_log.data_ptr<float>()[c] = static_cast<float>(std::log(-0.5 * std::log(squared)));
    lru.theta_log.data_ptr<float>()[c] = static_cast<float>(std::log(phase));
    lru.gamma_log.data_ptr<float>()[c] = static_cast<float>(0.5 * std::log1p(-squared));
  }
}

void StartMixer(const NetworkOptions& options, Random& random, BlockParameters& block) {
  const NestedSizes& sizes = options.sizes;
  switch (options.architecture.mixer) {
    case Mixer::kLru: {
      LruParameters& lru = block.lru;
      StartRing(options, random, lru);
      StartLinear(sizes, random, lru.b_re, lru.b_re_bias);
      lru.b_im = torch::zeros({RaggedWeights(sizes)});
      lru.b_im_bias = torch::zeros({sizes.max_dim()});
      StartLinear(sizes, random, lru.c_re, lru.c_re_bias);
      lru.c_im = torch::zeros({RaggedWeights(sizes)});
      lru.c_re.mul_(options.branch_scale);
      lru.c_re_bias.mul_(options.branch_scale);
      return;
    }
    case Mixer::kGru: {
      GruParameters& gru = block.gru;
      StartLinear(sizes, random, gru.wr, gru.wr_bias);
      StartLinear(sizes, random, gru.wu, gru.wu_bias);
      StartLinear(sizes, random, gru.wc, gru.wc_bias);
      for (Tensor* weight : {&gru.ur, &gru.uu, &gru.uc}) *weight = RaggedWeight(sizes, random);
      StartLinear(sizes, random, gru.o, gru.o_bias);
      gru.o.mul_(options.branch_scale);
      gru.o_bias.mul_(options.branch_scale);
      return;
    }
    case Mixer::kAttention: {
      AttentionParameters& attention = block.attention;
      StartLinear(sizes, random, attention.q, attention.q_bias);
      StartLinear(sizes, random, attention.k, attention.k_bias);
      StartLinear(sizes, random, attention.v, attention.v_bias);
      StartLinear(sizes, random, attention.o, attention.o_bias);
      attention.o.mul_(options.branch_scale);
      attention.o_bias.mul_(options.branch_scale);
      return;
    }
  }
}

BlockParameters StartBlock(const NetworkOptions& options, Random& random) {
  const NestedSizes& sizes = options.sizes;
  const int dim = sizes.max_dim();
  BlockParameters block;
  block.norm1_scale = torch::ones({dim});
  block.norm1_shift = torch::zeros({dim});
  StartMixer(options, random, block);
  block.norm2_scale = torch::ones({dim});
  block.norm2_shift = torch::zeros({dim});
  if (options.architecture.feed_forward == FeedForward::kGated) {
    StartLinear(sizes, random, block.wg, block.wg_bias);
  }
  StartLinear(sizes, random, block.w1, block.w1_bias);
  StartLinear(sizes, random, block.w2, block.w2_bias);
  block.w2.mul_(options.branch_scale);
  block.w2_bias.mul_(options.branch_scale);
  return block;
}

// [count] floats on the CPU; a copy, where there must be one, goes into `kept`.
std::span<const float> SpanOf(const Tensor& tensor, std::vector<Tensor>& kept) {
  if (!tensor.defined()) return {};
  TORCH_CHECK(tensor.scalar_type() == torch::kFloat32, "a view needs float32 tensors");
  Tensor own = tensor.detach();
  if (!own.is_contiguous() || !own.device().is_cpu()) {
    own = own.to(torch::kCPU).contiguous();
    kept.push_back(own);
  }
  return {own.data_ptr<float>(), static_cast<size_t>(own.numel())};
}

// Views of one level.
class LevelViews {
 public:
  LevelViews(const NestedSizes& sizes, int level, std::vector<Tensor>& kept)
      : sizes_(sizes), level_(level), kept_(kept) {}

  std::span<const float> Part(const Tensor& vector) const {
    if (!vector.defined()) return {};
    return SpanOf(vector.narrow(0, sizes_.begin(level_), sizes_.width(level_)), kept_);
  }
  // Of a matrix [rows, D].
  std::span<const float> Columns(const Tensor& matrix) const {
    if (!matrix.defined()) return {};
    return SpanOf(matrix.narrow(1, sizes_.begin(level_), sizes_.width(level_)), kept_);
  }
  LinearLevel Linear(const Tensor& weight, const Tensor& bias = {}) const {
    if (!weight.defined()) return {};
    return {.weight = SpanOf(RaggedLevel(weight, sizes_, level_), kept_), .bias = Part(bias)};
  }

 private:
  const NestedSizes& sizes_;
  int level_;
  std::vector<Tensor>& kept_;
};

BlockLevel BlockView(const BlockParameters& b, const LevelViews& level) {
  const LruParameters& lru = b.lru;
  const GruParameters& gru = b.gru;
  const AttentionParameters& attention = b.attention;
  return {.norm1_scale = level.Part(b.norm1_scale),
          .norm1_shift = level.Part(b.norm1_shift),
          .lru = {.nu_log = level.Part(lru.nu_log),
                  .theta_log = level.Part(lru.theta_log),
                  .gamma_log = level.Part(lru.gamma_log),
                  .b_re = level.Linear(lru.b_re, lru.b_re_bias),
                  .b_im = level.Linear(lru.b_im, lru.b_im_bias),
                  .c_re = level.Linear(lru.c_re, lru.c_re_bias),
                  .c_im = level.Linear(lru.c_im)},
          .gru = {.wr = level.Linear(gru.wr, gru.wr_bias),
                  .wu = level.Linear(gru.wu, gru.wu_bias),
                  .wc = level.Linear(gru.wc, gru.wc_bias),
                  .ur = level.Linear(gru.ur),
                  .uu = level.Linear(gru.uu),
                  .uc = level.Linear(gru.uc),
                  .o = level.Linear(gru.o, gru.o_bias)},
          .attention = {.q = level.Linear(attention.q, attention.q_bias),
                        .k = level.Linear(attention.k, attention.k_bias),
                        .v = level.Linear(attention.v, attention.v_bias),
                        .o = level.Linear(attention.o, attention.o_bias)},
          .norm2_scale = level.Part(b.norm2_scale),
          .norm2_shift = level.Part(b.norm2_shift),
          .wg = level.Linear(b.wg, b.wg_bias),
          .w1 = level.Linear(b.w1, b.w1_bias),
          .w2 = level.Linear(b.w2, b.w2_bias)};
}

}  // namespace

std::vector<NetworkParameters::Named> NetworkParameters::All() {
  std::vector<Named> all;
  const auto add = [&all](std::string name, Tensor& tensor) {
    if (!tensor.defined()) return;
    const bool is_bias = absl::EndsWith(name, ".bias") || absl::EndsWith(name, ".shift");
    all.push_back({std::move(name), &tensor, is_bias});
  };
  add("projector.weight", projector);
  add("projector.bias", projector_bias);
  add("item_residual", item_residual);
  add("positions", positions);
  for (size_t i = 0; i < blocks.size(); ++i) {
    const std::string block = absl::StrCat("block.", i, ".");
    BlockParameters& b = blocks[i];
    const auto linear = [&](const char* name, Tensor& weight, Tensor& bias) {
      add(absl::StrCat(block, name, ".weight"), weight);
      add(absl::StrCat(block, name, ".bias"), bias);
    };
    Tensor none;
    add(block + "norm1.scale", b.norm1_scale);
    add(block + "norm1.shift", b.norm1_shift);
    add(block + "lru.nu_log", b.lru.nu_log);
    add(block + "lru.theta_log", b.lru.theta_log);
    add(block + "lru.gamma_log", b.lru.gamma_log);
    linear("lru.B.re", b.lru.b_re, b.lru.b_re_bias);
    linear("lru.B.im", b.lru.b_im, b.lru.b_im_bias);
    linear("lru.C.re", b.lru.c_re, b.lru.c_re_bias);
    linear("lru.C.im", b.lru.c_im, none);
    linear("gru.Wr", b.gru.wr, b.gru.wr_bias);
    linear("gru.Wu", b.gru.wu, b.gru.wu_bias);
    linear("gru.Wc", b.gru.wc, b.gru.wc_bias);
    linear("gru.Ur", b.gru.ur, none);
    linear("gru.Uu", b.gru.uu, none);
    linear("gru.Uc", b.gru.uc, none);
    linear("gru.O", b.gru.o, b.gru.o_bias);
    linear("attention.Q", b.attention.q, b.attention.q_bias);
    linear("attention.K", b.attention.k, b.attention.k_bias);
    linear("attention.V", b.attention.v, b.attention.v_bias);
    linear("attention.O", b.attention.o, b.attention.o_bias);
    add(block + "norm2.scale", b.norm2_scale);
    add(block + "norm2.shift", b.norm2_shift);
    linear("ffn.Wg", b.wg, b.wg_bias);
    linear("ffn.W1", b.w1, b.w1_bias);
    linear("ffn.W2", b.w2, b.w2_bias);
  }
  add("final_norm.scale", final_scale);
  add("final_norm.shift", final_shift);
  return all;
}

NetworkParameters StartParameters(const NetworkOptions& options, Random& random) {
  TORCH_CHECK(options.feature_width > 0 || options.item_residual,
              "items without features need vectors of their own");
  const int64_t dim = options.sizes.max_dim();
  NetworkParameters parameters;
  if (options.feature_width > 0) {
    const double bound =
        options.projector_scale / std::sqrt(static_cast<double>(options.feature_width));
    parameters.projector = torch::empty({dim, options.feature_width});
    parameters.projector_bias = torch::empty({dim});
    FillUniform(parameters.projector, bound, random);
    FillUniform(parameters.projector_bias, bound, random);
  }
  if (options.item_residual) {
    parameters.item_residual = NormalVectors(options.items + 1, dim, random);
  }
  for (int b = 0; b < options.blocks; ++b) {
    parameters.blocks.push_back(StartBlock(options, random));
  }
  if (options.architecture.has_positions()) {
    parameters.positions = NormalVectors(options.max_len, dim, random);
  }
  if (options.architecture.final_norm) {
    parameters.final_scale = torch::ones({dim});
    parameters.final_shift = torch::zeros({dim});
  }
  for (const NetworkParameters::Named& parameter : parameters.All()) {
    *parameter.tensor = parameter.tensor->to(options.device).requires_grad_(true);
  }
  return parameters;
}

ModelView ViewOf(const NetworkOptions& options, const NetworkParameters& parameters,
                 const Tensor& items, std::vector<Tensor>& kept) {
  ModelView view = EmptyView(options.sizes, options.blocks, items.size(0), options.max_len,
                             options.architecture);
  kept.clear();
  for (int l = 0; l < options.sizes.levels(); ++l) {
    const size_t at = static_cast<size_t>(l);
    const LevelViews level(options.sizes, l, kept);
    for (size_t i = 0; i < parameters.blocks.size(); ++i) {
      view.blocks[i][at] = BlockView(parameters.blocks[i], level);
    }
    if (options.architecture.has_positions()) {
      view.positions[at] = level.Columns(parameters.positions);
    }
    if (options.architecture.final_norm) {
      view.final_norm[at] = {.scale = level.Part(parameters.final_scale),
                             .shift = level.Part(parameters.final_shift)};
    }
    view.items[at] = level.Columns(items);
  }
  kept.push_back(items.detach());  // where it is one level, the view is on its memory
  if (parameters.projector.defined()) {
    kept.push_back(parameters.projector.detach().to(torch::kCPU));
    kept.push_back(parameters.projector_bias.detach().to(torch::kCPU));
    SetProjector(*(kept.end() - 2), kept.back(), view);
  }
  return view;
}

void SetProjector(const Tensor& weight, const Tensor& bias, ModelView& view) {
  TORCH_CHECK(weight.is_contiguous() && weight.device().is_cpu() && bias.device().is_cpu(),
              "a view needs contiguous tensors on the CPU");
  std::vector<Tensor> none;
  for (int level = 0; level < view.sizes.levels(); ++level) {
    const int64_t begin = view.sizes.begin(level);
    const int64_t width = view.sizes.width(level);
    view.projector[static_cast<size_t>(level)] = {
        .weight = SpanOf(weight.narrow(0, begin, width), none),
        .bias = SpanOf(bias.narrow(0, begin, width), none)};
  }
}

}  // namespace nestrec
