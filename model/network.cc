#include "model/network.h"

#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/model_view.h"

namespace nestrec {
namespace {

using torch::Tensor;

constexpr double kResidualDeviation = 0.02;  // small: an item starts as its content

// [count] uniform in +-bound.
void FillUniform(Tensor tensor, double bound, Random& random) {
  float* values = tensor.data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i)
    values[i] = static_cast<float>(random.Uniform(-bound, bound));
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

// lambda on the ring r_min..r_max with any phase; gamma = sqrt(1 - |lambda|^2).
void InitializeRing(const NetworkOptions& options, Random& random, BlockParameters& block) {
  const int dim = options.sizes.max_dim();
  block.nu_log = torch::empty({dim});
  block.theta_log = torch::empty({dim});
  block.gamma_log = torch::empty({dim});
  const double low = options.r_min * options.r_min;
  const double high = options.r_max * options.r_max;
  for (int c = 0; c < dim; ++c) {
    // 1 - Uniform() is in (0, 1]: neither logarithm sees a zero.
    const double squared = low + (high - low) * (1.0 - random.Uniform());
    const double phase = 2.0 * M_PI * (1.0 - random.Uniform());
    block.nu_log.data_ptr<float>()[c] = static_cast<float>(std::log(-0.5 * std::log(squared)));
    block.theta_log.data_ptr<float>()[c] = static_cast<float>(std::log(phase));
    block.gamma_log.data_ptr<float>()[c] = static_cast<float>(0.5 * std::log1p(-squared));
  }
}

BlockParameters MakeBlock(const NetworkOptions& options, Random& random) {
  const NestedSizes& sizes = options.sizes;
  const int dim = sizes.max_dim();
  BlockParameters block;
  block.norm1_scale = torch::ones({dim});
  block.norm1_shift = torch::zeros({dim});
  InitializeRing(options, random, block);
  block.b_re = RaggedWeight(sizes, random);
  block.b_re_bias = LevelBias(sizes, random);
  block.b_im = torch::zeros({RaggedWeights(sizes)});
  block.b_im_bias = torch::zeros({dim});
  block.c_re = RaggedWeight(sizes, random);
  block.c_re_bias = LevelBias(sizes, random);
  block.c_im = torch::zeros({RaggedWeights(sizes)});
  block.norm2_scale = torch::ones({dim});
  block.norm2_shift = torch::zeros({dim});
  for (const auto& [weight, bias] :
       {std::pair(&block.wg, &block.wg_bias), std::pair(&block.w1, &block.w1_bias),
        std::pair(&block.w2, &block.w2_bias)}) {
    *weight = RaggedWeight(sizes, random);
    *bias = LevelBias(sizes, random);
  }
  for (Tensor* branch : {&block.c_re, &block.c_re_bias, &block.w2, &block.w2_bias}) {
    branch->mul_(options.branch_scale);
  }
  return block;
}

std::vector<double> SizeWeights(const NetworkOptions& options) {
  if (!options.size_weights.empty()) return options.size_weights;
  const int levels = options.sizes.levels();
  return std::vector<double>(static_cast<size_t>(levels), 1.0 / levels);
}

std::span<const float> SpanOf(const Tensor& tensor) {
  TORCH_CHECK(
      tensor.is_contiguous() && tensor.scalar_type() == torch::kFloat32 && tensor.device().is_cpu(),
      "a view needs contiguous float32 CPU tensors");
  return {tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

}  // namespace

std::vector<NetworkParameters::Named> NetworkParameters::All() {
  std::vector<Named> all = {{"projector.weight", &projector, false},
                            {"projector.bias", &projector_bias, true}};
  if (item_residual.defined()) all.push_back({"item_residual", &item_residual, false});
  for (size_t i = 0; i < blocks.size(); ++i) {
    BlockParameters& b = blocks[i];
    const std::string block = absl::StrCat("block.", i, ".");
    const std::pair<const char*, Tensor*> tensors[] = {
        {"norm1.scale", &b.norm1_scale}, {"norm1.shift", &b.norm1_shift},
        {"lru.nu_log", &b.nu_log},       {"lru.theta_log", &b.theta_log},
        {"lru.gamma_log", &b.gamma_log}, {"lru.B.re.weight", &b.b_re},
        {"lru.B.re.bias", &b.b_re_bias}, {"lru.B.im.weight", &b.b_im},
        {"lru.B.im.bias", &b.b_im_bias}, {"lru.C.re.weight", &b.c_re},
        {"lru.C.re.bias", &b.c_re_bias}, {"lru.C.im.weight", &b.c_im},
        {"norm2.scale", &b.norm2_scale}, {"norm2.shift", &b.norm2_shift},
        {"ffn.Wg.weight", &b.wg},        {"ffn.Wg.bias", &b.wg_bias},
        {"ffn.W1.weight", &b.w1},        {"ffn.W1.bias", &b.w1_bias},
        {"ffn.W2.weight", &b.w2},        {"ffn.W2.bias", &b.w2_bias},
    };
    for (const auto& [name, tensor] : tensors) {
      const absl::string_view text = name;
      const bool is_bias = absl::EndsWith(text, ".bias") || absl::EndsWith(text, ".shift");
      all.push_back({absl::StrCat(block, name), tensor, is_bias});
    }
  }
  return all;
}

Network::Network(const NetworkOptions& options, Random random)
    : options_(options),
      cross_entropy_({.sizes = options.sizes,
                      .size_weights = SizeWeights(options),
                      .inverse_temperatures = options.inverse_temperatures,
                      .distillation = options.distillation,
                      .precision = options.precision}) {
  parameters_.projector = torch::empty({options.sizes.max_dim(), options.feature_width});
  parameters_.projector_bias = torch::empty({options.sizes.max_dim()});
  const double bound =
      options.projector_scale / std::sqrt(static_cast<double>(options.feature_width));
  FillUniform(parameters_.projector, bound, random);
  FillUniform(parameters_.projector_bias, bound, random);
  if (options.item_residual) {
    parameters_.item_residual = torch::empty({options.items + 1, options.sizes.max_dim()});
    float* values = parameters_.item_residual.data_ptr<float>();
    for (int64_t i = 0; i < parameters_.item_residual.numel(); ++i) {
      values[i] = static_cast<float>(kResidualDeviation * random.Normal());
    }
  }
  for (int b = 0; b < options.blocks; ++b) parameters_.blocks.push_back(MakeBlock(options, random));
  for (const NetworkParameters::Named& parameter : parameters_.All())
    parameter.tensor->requires_grad_(true);
}

void Network::StartProjectorAt(const Tensor& weight, const Tensor& bias) {
  const torch::NoGradGuard no_grad;
  parameters_.projector.slice(0, 0, weight.size(0)).copy_(weight * options_.projector_scale);
  parameters_.projector_bias.slice(0, 0, bias.size(0)).copy_(bias * options_.projector_scale);
}

ItemTensors Network::Items(const Tensor& features) const {
  return {.features = features,
          .projector = parameters_.projector,
          .bias = parameters_.projector_bias,
          .residual = parameters_.item_residual,
          .offset = {},
          .half_features = {}};
}

Tensor Network::ItemEmbeddings(const Tensor& features) const {
  return nestrec::ItemEmbeddings(Items(features));
}

// Only the batch's own items are embedded here; the loss sees to all of them.
Tensor Network::EmbedTokens(const PackedBatch& batch, const Tensor& features) const {
  const Tensor tokens = torch::tensor(batch.tokens, torch::kInt64).to(features.device());
  const Tensor content = FrozenInputLinear(features.index_select(0, tokens), parameters_.projector,
                                           parameters_.projector_bias, options_.precision);
  return parameters_.item_residual.defined()
             ? content + parameters_.item_residual.index_select(0, tokens)
             : content;
}

Network::Activations Network::Run(const PackedBatch& batch, const Tensor& features,
                                  bool training) const {
  const NestedSizes& sizes = options_.sizes;
  const auto drop = [&](const Tensor& x) {
    return training && options_.dropout > 0 ? torch::dropout(x, options_.dropout, true) : x;
  };
  const auto linear = [&](const Tensor& x, const Tensor& weight, const Tensor& bias) {
    return NestedLinear(x, weight, bias, sizes, options_.precision);
  };
  Tensor x = drop(EmbedTokens(batch, features));  // [P, D]
  Activations activations;
  for (const BlockParameters& b : parameters_.blocks) {
    const Tensor radius = torch::exp(-torch::exp(b.nu_log));  // [D]
    const Tensor phase = torch::exp(b.theta_log);
    const Tensor gamma = torch::exp(b.gamma_log);
    const Tensor n = NestedLayerNorm(x, b.norm1_scale, b.norm1_shift, sizes);
    const auto [h_re, h_im] = LinearRecurrence(
        gamma * linear(n, b.b_re, b.b_re_bias), gamma * linear(n, b.b_im, b.b_im_bias),
        radius * torch::cos(phase), radius * torch::sin(phase), batch.run_begins);
    activations.h_re.push_back(h_re);
    activations.h_im.push_back(h_im);
    const Tensor y = linear(h_re, b.c_re, b.c_re_bias) - linear(h_im, b.c_im, Tensor());
    x = x + drop(y);
    const Tensor u = NestedLayerNorm(x, b.norm2_scale, b.norm2_shift, sizes);
    const Tensor gate = torch::silu(linear(u, b.wg, b.wg_bias));
    const Tensor value = drop(linear(u, b.w1, b.w1_bias));
    x = x + drop(linear(gate * value, b.w2, b.w2_bias));
  }
  activations.z = x;
  return activations;
}

Tensor Network::Loss(const PackedBatch& batch, const Tensor& z, const Tensor& features,
                     const std::optional<ItemSample>& sample) {
  Tensor labels = torch::tensor(batch.labels, torch::kInt64);
  Tensor labelled_z = z;
  if (batch.labelled() != batch.positions()) {
    const Tensor rows = labels.nonzero().squeeze(1);
    labelled_z = z.index_select(0, rows.to(z.device()));
    labels = labels.index_select(0, rows);
  }
  ItemTensors items = Items(features);
  if (sample.has_value()) {
    const Tensor chosen = torch::tensor(sample->items, torch::kInt64).to(features.device());
    items.features = features.index_select(0, chosen);
    if (items.residual.defined()) items.residual = items.residual.index_select(0, chosen);
    items.offset = torch::tensor(sample->offsets, features.options());
    labels = torch::tensor(sample->labels, torch::kInt64);
  } else if (options_.precision == Precision::kBfloat16 && features.device().is_cpu()) {
    if (!rounded_features_.is_same(features)) {
      half_features_ = features.to(torch::kBFloat16);
      rounded_features_ = features;
    }
    items.half_features = half_features_;
  }
  return cross_entropy_(labelled_z, items, labels);
}

int64_t Network::StepFlops(int64_t positions) const {
  constexpr int64_t kNestedLinears = 7;  // B and C twice, Wg, W1, W2
  // A product's gradients cost twice the product; frozen features get none.
  const int64_t blocks =
      6 * positions * RaggedWeights(options_.sizes) * kNestedLinears * options_.blocks;
  const int64_t tokens = 4 * positions * options_.feature_width * options_.sizes.max_dim();
  return blocks + tokens + cross_entropy_.flops();
}

ModelView Network::View(const Tensor& items, std::vector<Tensor>& item_levels) const {
  const NestedSizes& sizes = options_.sizes;
  ModelView view = EmptyView(sizes, options_.blocks, items.size(0), options_.max_len);
  item_levels.clear();
  for (int level = 0; level < sizes.levels(); ++level) {
    const size_t at = static_cast<size_t>(level);
    const int64_t begin = sizes.begin(level);
    const int64_t width = sizes.width(level);
    const auto part = [&](const Tensor& vector) { return SpanOf(vector.narrow(0, begin, width)); };
    const auto linear = [&](const Tensor& weight, const Tensor& bias) {
      return LinearLevel{.weight = SpanOf(RaggedLevel(weight, sizes, level)),
                         .bias = bias.defined() ? part(bias) : std::span<const float>()};
    };
    item_levels.push_back(items.detach().narrow(1, begin, width).contiguous());
    view.items[at] = SpanOf(item_levels.back());
    for (size_t i = 0; i < parameters_.blocks.size(); ++i) {
      const BlockParameters& b = parameters_.blocks[i];
      view.blocks[i][at] = BlockLevel{.norm1_scale = part(b.norm1_scale),
                                      .norm1_shift = part(b.norm1_shift),
                                      .nu_log = part(b.nu_log),
                                      .theta_log = part(b.theta_log),
                                      .gamma_log = part(b.gamma_log),
                                      .b_re = linear(b.b_re, b.b_re_bias),
                                      .b_im = linear(b.b_im, b.b_im_bias),
                                      .c_re = linear(b.c_re, b.c_re_bias),
                                      .c_im = linear(b.c_im, Tensor()),
                                      .norm2_scale = part(b.norm2_scale),
                                      .norm2_shift = part(b.norm2_shift),
                                      .wg = linear(b.wg, b.wg_bias),
                                      .w1 = linear(b.w1, b.w1_bias),
                                      .w2 = linear(b.w2, b.w2_bias)};
    }
  }
  SetProjector(parameters_.projector, parameters_.projector_bias, view);
  return view;
}

void Network::SetProjector(const Tensor& weight, const Tensor& bias, ModelView& view) {
  for (int level = 0; level < view.sizes.levels(); ++level) {
    const int64_t begin = view.sizes.begin(level);
    const int64_t width = view.sizes.width(level);
    view.projector[static_cast<size_t>(level)] = {.weight = SpanOf(weight.narrow(0, begin, width)),
                                                  .bias = SpanOf(bias.narrow(0, begin, width))};
  }
}

}  // namespace nestrec
