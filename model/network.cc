#include "model/network.h"

#include <algorithm>

#include "model/mixer_ops.h"

namespace nestrec {
namespace {

using torch::Tensor;

std::vector<double> SizeWeights(const NetworkOptions& options) {
  if (!options.size_weights.empty()) return options.size_weights;
  const int levels = options.sizes.levels();
  return std::vector<double>(static_cast<size_t>(levels), 1.0 / levels);
}

NestedSoftmaxOptions SoftmaxOptions(const NetworkOptions& options) {
  NestedSoftmaxOptions softmax = {.sizes = options.sizes,
                                  .size_weights = SizeWeights(options),
                                  .inverse_temperatures = options.inverse_temperatures,
                                  .distillation = options.distillation,
                                  .precision = options.precision};
  // Few, large products: what such devices are good at, and have the memory for.
  if (!options.device.is_cpu()) softmax.memory_bytes = int64_t{2} << 30;
  return softmax;
}

// Nested layers in a block's mixer.
int MixerLayers(Mixer mixer) {
  switch (mixer) {
    case Mixer::kLru:
      return 4;  // Re and Im of B and C
    case Mixer::kGru:
      return 7;  // two for each gate and the candidate, O
    case Mixer::kAttention:
      return 4;  // Q, K, V, O
  }
  return 0;
}

}  // namespace

Network::Network(const NetworkOptions& options, Random random)
    : options_(options),
      parameters_(StartParameters(options, random)),
      dropout_(options.sizes, options.dropout, options.dropout_power, options.device),
      cross_entropy_(SoftmaxOptions(options), options.portable) {}

void Network::StartProjectorAt(const Tensor& weight, const Tensor& bias) {
  const torch::NoGradGuard no_grad;
  parameters_.projector.slice(0, 0, weight.size(0)).copy_(weight * options_.projector_scale);
  parameters_.projector_bias.slice(0, 0, bias.size(0)).copy_(bias * options_.projector_scale);
}

ItemTensors Network::Items(const Tensor& features) const {
  const int64_t dim = options_.sizes.max_dim();
  const bool projects = parameters_.projector.defined();
  return {.features = features,
          .projector = projects ? parameters_.projector : features.new_zeros({dim, 0}),
          .bias = projects ? parameters_.projector_bias : features.new_zeros({dim}),
          .residual = parameters_.item_residual,
          .offset = {},
          .half_features = {}};
}

Tensor Network::ItemEmbeddings(const Tensor& features) const {
  return parameters_.projector.defined() ? nestrec::ItemEmbeddings(Items(features))
                                         : parameters_.item_residual;
}

// Only the batch's own items are embedded here; the loss sees to all of them.
Tensor Network::EmbedTokens(const PackedBatch& batch, const Tensor& features) const {
  const Tensor tokens = torch::tensor(batch.tokens, torch::kInt64).to(features.device());
  Tensor x;
  if (parameters_.projector.defined()) {
    x = FrozenInputLinear(features.index_select(0, tokens), parameters_.projector,
                          parameters_.projector_bias, {options_.precision, options_.portable});
  }
  if (parameters_.item_residual.defined()) {
    const Tensor residual = parameters_.item_residual.index_select(0, tokens);
    x = x.defined() ? x + residual : residual;
  }
  if (options_.architecture.input_scale != 1.0f) x = x * options_.architecture.input_scale;
  if (!options_.architecture.has_positions()) return x;
  const std::vector<int64_t> depths = Depths(batch.run_begins);
  TORCH_CHECK(*std::max_element(depths.begin(), depths.end()) < options_.max_len,
              "a sequence of the batch is longer than max_len, ", options_.max_len);
  return x + parameters_.positions.index_select(
                 0, torch::tensor(depths, torch::kInt64).to(features.device()));
}

Tensor Network::Linear(const Tensor& x, const Tensor& weight, const Tensor& bias) const {
  return NestedLinear(x, weight, bias, options_.sizes, {options_.precision, options_.portable});
}

Tensor Network::Mix(const BlockParameters& block, const Tensor& n, const PackedBatch& batch,
                    const NestedDropout& drop, std::vector<Tensor>& state) const {
  const NestedSizes& sizes = options_.sizes;
  switch (options_.architecture.mixer) {
    case Mixer::kLru: {
      const LruParameters& lru = block.lru;
      const Tensor radius = torch::exp(-torch::exp(lru.nu_log));  // [D]
      const Tensor phase = torch::exp(lru.theta_log);
      const Tensor gamma = torch::exp(lru.gamma_log);
      const auto [h_re, h_im] =
          LinearRecurrence(gamma * Linear(n, lru.b_re, lru.b_re_bias),
                           gamma * Linear(n, lru.b_im, lru.b_im_bias), radius * torch::cos(phase),
                           radius * torch::sin(phase), batch.run_begins, options_.portable);
      state = {h_re, h_im};
      return Linear(h_re, lru.c_re, lru.c_re_bias) - Linear(h_im, lru.c_im, Tensor());
    }
    case Mixer::kGru: {
      const GruParameters& gru = block.gru;
      const Tensor h = GatedRecurrence(
          Linear(n, gru.wr, gru.wr_bias), Linear(n, gru.wu, gru.wu_bias),
          Linear(n, gru.wc, gru.wc_bias), {.reset = gru.ur, .update = gru.uu, .candidate = gru.uc},
          sizes, batch.run_begins, {options_.precision, options_.portable});
      state = {h};
      return Linear(h, gru.o, gru.o_bias);
    }
    case Mixer::kAttention: {
      const AttentionParameters& attention = block.attention;
      return Linear(
          CausalAttention(Linear(n, attention.q, attention.q_bias),
                          Linear(n, attention.k, attention.k_bias),
                          Linear(n, attention.v, attention.v_bias), sizes,
                          options_.architecture.head_width, batch.run_begins, drop.rate()),
          attention.o, attention.o_bias);
    }
  }
  return {};
}

Tensor Network::FeedForwardOf(const BlockParameters& block, const Tensor& u,
                              const NestedDropout& drop) const {
  const Tensor value = Linear(u, block.w1, block.w1_bias);
  const Tensor middle = block.wg.defined()
                            ? torch::silu(Linear(u, block.wg, block.wg_bias)) * drop(value)
                            : drop(torch::relu(value));
  return Linear(middle, block.w2, block.w2_bias);
}

Network::Activations Network::Run(const PackedBatch& batch, const Tensor& features,
                                  bool training) const {
  const NestedSizes& sizes = options_.sizes;
  const NestedDropout drop = training ? dropout_ : NestedDropout();
  Tensor x = drop(EmbedTokens(batch, features));  // [P, D]
  Activations activations;
  for (const BlockParameters& block : parameters_.blocks) {
    std::vector<Tensor>& state = activations.states.emplace_back();
    const Tensor n = NestedLayerNorm(x, block.norm1_scale, block.norm1_shift, sizes);
    x = x + drop(Mix(block, n, batch, drop, state));
    const Tensor u = NestedLayerNorm(x, block.norm2_scale, block.norm2_shift, sizes);
    x = x + drop(FeedForwardOf(block, u, drop));
  }
  if (options_.architecture.final_norm) {
    x = NestedLayerNorm(x, parameters_.final_scale, parameters_.final_shift, sizes);
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
  const int64_t layers = MixerLayers(options_.architecture.mixer) +
                         (options_.architecture.feed_forward == FeedForward::kGated ? 3 : 2);
  // A product's gradients cost twice the product; frozen features get none.
  const int64_t blocks = 6 * positions * RaggedWeights(options_.sizes) * layers * options_.blocks;
  const int64_t tokens = 4 * positions * options_.feature_width * options_.sizes.max_dim();
  return blocks + tokens + cross_entropy_.flops();
}

}  // namespace nestrec
