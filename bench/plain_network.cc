#include "bench/plain_network.h"

#include <cmath>

#include "model/nested_ops.h"

namespace nestrec {
namespace {

using torch::Tensor;

constexpr int64_t kIgnored = -100;  // libtorch's own mark for a label that does not count

// x [B, L, D], real or complex; weight and bias of the same kind.
Tensor Linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const NestedSizes& sizes) {
  std::vector<Tensor> levels;
  for (int level = 0; level < sizes.levels(); ++level) {
    const Tensor product =
        torch::matmul(x.narrow(2, 0, sizes.end(level)), RaggedLevel(weight, sizes, level).t());
    levels.push_back(product + bias.narrow(0, sizes.begin(level), sizes.width(level)));
  }
  return torch::cat(levels, 2);
}

Tensor LayerNorm(const Tensor& x, const Tensor& scale, const Tensor& shift,
                 const NestedSizes& sizes) {
  std::vector<Tensor> levels;
  for (int level = 0; level < sizes.levels(); ++level) {
    const int64_t begin = sizes.begin(level);
    const int64_t width = sizes.width(level);
    levels.push_back(torch::layer_norm(x.narrow(2, begin, width), {width},
                                       scale.narrow(0, begin, width),
                                       shift.narrow(0, begin, width)));
  }
  return torch::cat(levels, 2);
}

// h_t = lambda h_{t-1} + u_t along dimension 1, by doubling: after round i, every stretch of 2^i
// positions holds its own states; the second half of a stretch then takes in the first one's last.
// u [B, L, D] complex, lambda [D] complex, real [B, L]: whether a position passes its state on.
Tensor Recurrence(const Tensor& u, const Tensor& lambda, const Tensor& real) {
  const int64_t rows = u.size(0);
  const int64_t length = u.size(1);
  const int64_t dim = u.size(2);
  int64_t padded = 1;
  while (padded < length) padded *= 2;
  // Both are padded on the left, where the sequences are.
  Tensor h = torch::cat({torch::zeros({rows, padded - length, dim}, u.options()), u}, 1);
  const Tensor passes =
      torch::cat({torch::zeros({rows, padded - length}, real.options()), real}, 1);
  Tensor powers = lambda.unsqueeze(0);  // lambda^1 .. lambda^(half)
  for (int64_t stretch = 2; stretch <= padded; stretch *= 2) {
    const int64_t half = stretch / 2;
    const Tensor halves = h.reshape({rows * padded / stretch, 2, half, dim});
    const Tensor first = halves.select(1, 0);
    const Tensor last =
        first.narrow(1, half - 1, 1) *
        passes.reshape({rows * padded / stretch, stretch, 1}).narrow(1, half - 1, 1);
    h = torch::cat({first, halves.select(1, 1) + powers * last}, 1).reshape({rows, padded, dim});
    powers = torch::cat({powers, powers * powers.narrow(0, half - 1, 1)}, 0);
  }
  return h.narrow(1, padded - length, length);
}

Tensor Drop(const Tensor& x, double dropout) { return torch::dropout(x, dropout, dropout > 0); }

Tensor Block(const Tensor& x, const BlockParameters& b, const NestedSizes& sizes,
             const Tensor& real, double dropout) {
  const LruParameters& lru = b.lru;
  const Tensor lambda =
      torch::exp(torch::complex(-torch::exp(lru.nu_log), torch::exp(lru.theta_log)));
  const Tensor gamma = torch::exp(lru.gamma_log);
  const Tensor normed = LayerNorm(x, b.norm1_scale, b.norm1_shift, sizes);
  const Tensor input = Linear(normed.to(torch::kComplexFloat), torch::complex(lru.b_re, lru.b_im),
                              torch::complex(lru.b_re_bias, lru.b_im_bias), sizes);
  const Tensor h = Recurrence(gamma * input, lambda, real);
  const Tensor y =
      torch::real(Linear(h, torch::complex(lru.c_re, lru.c_im),
                         torch::complex(lru.c_re_bias, torch::zeros_like(lru.c_re_bias)), sizes));
  const Tensor mixed = x + Drop(y, dropout);
  const Tensor u = LayerNorm(mixed, b.norm2_scale, b.norm2_shift, sizes);
  const Tensor gate = torch::silu(Linear(u, b.wg, b.wg_bias, sizes));
  const Tensor gated = gate * Drop(Linear(u, b.w1, b.w1_bias, sizes), dropout);
  return mixed + Drop(Linear(gated, b.w2, b.w2_bias, sizes), dropout);
}

}  // namespace

PaddedBatch Pad(const PackedBatch& batch, const std::vector<int64_t>& row_begins, int64_t max_len) {
  const int64_t rows = static_cast<int64_t>(row_begins.size()) - 1;
  PaddedBatch padded = {.tokens = torch::zeros({rows, max_len}, torch::kInt64),
                        .labels = torch::full({rows, max_len}, kIgnored, torch::kInt64)};
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t begin = row_begins[static_cast<size_t>(row)];
    const int64_t count = row_begins[static_cast<size_t>(row) + 1] - begin;
    for (int64_t i = 0; i < count; ++i) {
      padded.tokens[row][max_len - count + i] = batch.tokens[static_cast<size_t>(begin + i)];
      padded.labels[row][max_len - count + i] = batch.labels[static_cast<size_t>(begin + i)];
    }
  }
  return padded;
}

Tensor PlainLoss(const NetworkParameters& parameters, const NestedSizes& sizes,
                 const PaddedBatch& batch, const Tensor& features, double dropout,
                 const PlainVariant& variant) {
  const auto project = [&](const Tensor& of) {
    return torch::linear(of, parameters.projector, parameters.projector_bias);
  };
  const Tensor items = project(features);
  const Tensor read = variant.input_features.defined() ? project(variant.input_features) : items;
  Tensor x = Drop(torch::embedding(read, batch.tokens), dropout);  // [B, L, D]
  const Tensor real = (batch.tokens > 0).to(torch::kFloat32);
  for (const BlockParameters& block : parameters.blocks) x = Block(x, block, sizes, real, dropout);
  const int levels = variant.levels > 0 ? variant.levels : sizes.levels();
  Tensor loss = torch::zeros({});
  for (int level = 0; level < levels; ++level) {
    const int64_t dim = sizes.end(level);
    Tensor targets = items.narrow(1, 0, dim);
    if (variant.unit_items) {
      targets = torch::nn::functional::normalize(
                    targets, torch::nn::functional::NormalizeFuncOptions().dim(1)) *
                std::sqrt(static_cast<double>(dim));
    }
    const Tensor logits = torch::matmul(x.narrow(2, 0, dim), targets.t());  // [B, L, N + 1]
    loss = loss + torch::nn::functional::cross_entropy(
                      logits.flatten(0, 1), batch.labels.flatten(),
                      torch::nn::functional::CrossEntropyFuncOptions().ignore_index(kIgnored));
  }
  return loss / levels;
}

}  // namespace nestrec
