#include "model/nested_ops.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace nestrec {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kNormEpsilon = 1e-5;
constexpr int64_t kMinPositionsPerBlock = 16;

Tensor Columns(const Tensor& x, int64_t begin, int64_t end) {
  return x.narrow(1, begin, end - begin);
}

struct NestedLinearFunction : torch::autograd::Function<NestedLinearFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const c10::optional<Tensor>& bias, const NestedSizes& sizes) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["sizes"] = std::vector<int64_t>(sizes.values().begin(), sizes.values().end());
    ctx->saved_data["has_bias"] = bias.has_value();
    Tensor y = torch::empty({x.size(0), sizes.max_dim()}, x.options());
    for (int level = 0; level < sizes.levels(); ++level) {
      const Tensor w = RaggedLevel(weight, sizes, level);                // [w_j, s_j]
      const Tensor input = Columns(x, 0, sizes.end(level));              // [P, s_j]
      Tensor output = Columns(y, sizes.begin(level), sizes.end(level));  // [P, w_j]
      if (bias.has_value()) {
        torch::addmm_out(output, bias->narrow(0, sizes.begin(level), sizes.width(level)), input,
                         w.t());
      } else {
        torch::mm_out(output, input, w.t());
      }
    }
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor& x = saved[0];
    const Tensor& weight = saved[1];
    const std::vector<int64_t> sizes = ctx->saved_data["sizes"].toIntVector();
    const Tensor dy = grads[0].contiguous();  // [P, D]
    Tensor dx = torch::zeros_like(x);
    Tensor dweight = torch::empty_like(weight);
    int64_t begin = 0;
    int64_t at = 0;
    for (const int64_t end : sizes) {
      const int64_t width = end - begin;
      const Tensor dy_level = Columns(dy, begin, end);                        // [P, w_j]
      const Tensor w = weight.narrow(0, at, width * end).view({width, end});  // [w_j, s_j]
      Tensor dw = dweight.narrow(0, at, width * end).view({width, end});
      Tensor dx_prefix = Columns(dx, 0, end);
      dx_prefix.addmm_(dy_level, w);
      torch::mm_out(dw, dy_level.t(), Columns(x, 0, end));
      begin = end;
      at += width * end;
    }
    const bool has_bias = ctx->saved_data["has_bias"].toBool();
    return {dx, dweight, has_bias ? dy.sum(0) : Tensor(), Tensor()};
  }
};

// The recurrence and its adjoint over rows [begin, end) of contiguous [P, D] matrices.
template <typename T>
void ScanForward(const T* u_re, const T* u_im, const T* lambda_re, const T* lambda_im,
                 int64_t begin, int64_t end, int64_t dim, T* h_re, T* h_im) {
  for (int64_t p = begin; p < end; ++p) {
    const int64_t row = p * dim;
    if (p == begin) {
      std::copy_n(u_re + row, dim, h_re + row);
      std::copy_n(u_im + row, dim, h_im + row);
      continue;
    }
    const T* previous_re = h_re + row - dim;
    const T* previous_im = h_im + row - dim;
    for (int64_t c = 0; c < dim; ++c) {
      h_re[row + c] = lambda_re[c] * previous_re[c] - lambda_im[c] * previous_im[c] + u_re[row + c];
      h_im[row + c] = lambda_re[c] * previous_im[c] + lambda_im[c] * previous_re[c] + u_im[row + c];
    }
  }
}

// g_t = dh_t + conj(lambda) g_{t+1}; du_t = g_t; dlambda += conj(h_{t-1}) g_t, with the gradient of
// a complex number held as (d/dre, d/dim).
template <typename T>
void ScanBackward(const T* dh_re, const T* dh_im, const T* h_re, const T* h_im, const T* lambda_re,
                  const T* lambda_im, int64_t begin, int64_t end, int64_t dim, T* du_re, T* du_im,
                  T* dlambda_re, T* dlambda_im) {
  for (int64_t p = end - 1; p >= begin; --p) {
    const int64_t row = p * dim;
    if (p == end - 1) {
      std::copy_n(dh_re + row, dim, du_re + row);
      std::copy_n(dh_im + row, dim, du_im + row);
    } else {
      const T* next_re = du_re + row + dim;
      const T* next_im = du_im + row + dim;
      for (int64_t c = 0; c < dim; ++c) {
        du_re[row + c] = dh_re[row + c] + lambda_re[c] * next_re[c] + lambda_im[c] * next_im[c];
        du_im[row + c] = dh_im[row + c] + lambda_re[c] * next_im[c] - lambda_im[c] * next_re[c];
      }
    }
    if (p == begin) continue;
    const T* previous_re = h_re + row - dim;
    const T* previous_im = h_im + row - dim;
    for (int64_t c = 0; c < dim; ++c) {
      dlambda_re[c] += previous_re[c] * du_re[row + c] + previous_im[c] * du_im[row + c];
      dlambda_im[c] += previous_re[c] * du_im[row + c] - previous_im[c] * du_re[row + c];
    }
  }
}

// Splits the runs into at most `parts` consecutive groups of about as many rows each, so that the
// work and the order of summation depend on the thread count alone.
std::vector<std::pair<int64_t, int64_t>> GroupRuns(const std::vector<int64_t>& run_begins,
                                                   int64_t parts) {
  const int64_t runs = static_cast<int64_t>(run_begins.size()) - 1;
  const int64_t rows = run_begins.back();
  std::vector<std::pair<int64_t, int64_t>> groups;
  int64_t first = 0;
  for (int64_t part = 1; part <= parts && first < runs; ++part) {
    int64_t last = first + 1;
    while (last < runs && run_begins[static_cast<size_t>(last)] * parts < rows * part) ++last;
    if (part == parts) last = runs;
    groups.emplace_back(first, last);
    first = last;
  }
  return groups;
}

struct LinearRecurrenceFunction : torch::autograd::Function<LinearRecurrenceFunction> {
  static variable_list forward(AutogradContext* ctx, const Tensor& u_re_in, const Tensor& u_im_in,
                               const Tensor& lambda_re, const Tensor& lambda_im,
                               const std::vector<int64_t>& run_begins) {
    TORCH_CHECK(u_re_in.device().is_cpu(), "LinearRecurrence: CPU tensors only");
    const Tensor u_re = u_re_in.contiguous();
    const Tensor u_im = u_im_in.contiguous();
    Tensor h_re = torch::empty_like(u_re);
    Tensor h_im = torch::empty_like(u_im);
    const int64_t dim = u_re.size(1);
    const auto groups = GroupRuns(run_begins, at::get_num_threads());
    AT_DISPATCH_FLOATING_TYPES(u_re.scalar_type(), "LinearRecurrence", [&] {
      at::parallel_for(0, static_cast<int64_t>(groups.size()), 1, [&](int64_t low, int64_t high) {
        for (int64_t g = low; g < high; ++g) {
          for (int64_t run = groups[static_cast<size_t>(g)].first;
               run < groups[static_cast<size_t>(g)].second; ++run) {
            ScanForward(u_re.data_ptr<scalar_t>(), u_im.data_ptr<scalar_t>(),
                        lambda_re.data_ptr<scalar_t>(), lambda_im.data_ptr<scalar_t>(),
                        run_begins[static_cast<size_t>(run)],
                        run_begins[static_cast<size_t>(run) + 1], dim, h_re.data_ptr<scalar_t>(),
                        h_im.data_ptr<scalar_t>());
          }
        }
      });
    });
    ctx->save_for_backward({h_re, h_im, lambda_re, lambda_im});
    ctx->saved_data["run_begins"] = run_begins;
    return {h_re, h_im};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor& h_re = saved[0];
    const Tensor& h_im = saved[1];
    const std::vector<int64_t> run_begins = ctx->saved_data["run_begins"].toIntVector();
    const Tensor dh_re = grads[0].contiguous();
    const Tensor dh_im = grads[1].contiguous();
    Tensor du_re = torch::empty_like(h_re);
    Tensor du_im = torch::empty_like(h_im);
    const int64_t dim = h_re.size(1);
    const auto groups = GroupRuns(run_begins, at::get_num_threads());
    const int64_t parts = std::max<int64_t>(1, static_cast<int64_t>(groups.size()));
    Tensor dlambda_re = torch::zeros({parts, dim}, h_re.options());
    Tensor dlambda_im = torch::zeros({parts, dim}, h_re.options());
    AT_DISPATCH_FLOATING_TYPES(h_re.scalar_type(), "LinearRecurrence backward", [&] {
      at::parallel_for(0, static_cast<int64_t>(groups.size()), 1, [&](int64_t low, int64_t high) {
        for (int64_t g = low; g < high; ++g) {
          for (int64_t run = groups[static_cast<size_t>(g)].first;
               run < groups[static_cast<size_t>(g)].second; ++run) {
            ScanBackward(dh_re.data_ptr<scalar_t>(), dh_im.data_ptr<scalar_t>(),
                         h_re.data_ptr<scalar_t>(), h_im.data_ptr<scalar_t>(),
                         saved[2].data_ptr<scalar_t>(), saved[3].data_ptr<scalar_t>(),
                         run_begins[static_cast<size_t>(run)],
                         run_begins[static_cast<size_t>(run) + 1], dim, du_re.data_ptr<scalar_t>(),
                         du_im.data_ptr<scalar_t>(), dlambda_re.data_ptr<scalar_t>() + g * dim,
                         dlambda_im.data_ptr<scalar_t>() + g * dim);
          }
        }
      });
    });
    return {du_re, du_im, dlambda_re.sum(0), dlambda_im.sum(0), Tensor()};
  }
};

struct NestedCrossEntropyFunction : torch::autograd::Function<NestedCrossEntropyFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& z, const Tensor& items,
                        const Tensor& labels, const NestedSizes& sizes,
                        const std::vector<double>& size_weights, int64_t memory_bytes) {
    const int64_t positions = z.size(0);
    const int64_t classes = items.size(0);
    const int64_t levels = sizes.levels();
    const int64_t row_bytes = (levels + 1) * classes * static_cast<int64_t>(z.element_size());
    const int64_t block = std::clamp<int64_t>(
        memory_bytes / row_bytes, std::min(kMinPositionsPerBlock, positions), positions);
    Tensor dz = torch::empty_like(z);
    Tensor ditems = torch::empty_like(items);
    Tensor probabilities = torch::empty({levels, block, classes}, z.options());
    Tensor log_probabilities = torch::empty({block, classes}, z.options());
    double loss = 0;
    for (int64_t begin = 0; begin < positions; begin += block) {
      const int64_t rows = std::min(block, positions - begin);
      const Tensor z_block = z.narrow(0, begin, rows);                        // [b, D]
      const Tensor label_block = labels.narrow(0, begin, rows).unsqueeze(1);  // [b, 1]
      Tensor log_p = log_probabilities.narrow(0, 0, rows);
      // Narrow to wide: the logits of each size, then their softmax in place.
      for (int level = 0; level < levels; ++level) {
        Tensor logits = probabilities[level].narrow(0, 0, rows);  // [b, N + 1]
        const Tensor z_level = Columns(z_block, sizes.begin(level), sizes.end(level));
        const Tensor items_level = Columns(items, sizes.begin(level), sizes.end(level));
        if (level == 0) {
          torch::mm_out(logits, z_level, items_level.t());
        } else {
          torch::addmm_out(logits, probabilities[level - 1].narrow(0, 0, rows), z_level,
                           items_level.t());
          SoftmaxInPlace(
              probabilities[level - 1].narrow(0, 0, rows), log_p, label_block,
              size_weights[static_cast<size_t>(level) - 1] / static_cast<double>(positions), loss);
        }
      }
      SoftmaxInPlace(probabilities[levels - 1].narrow(0, 0, rows), log_p, label_block,
                     size_weights.back() / static_cast<double>(positions), loss);
      // Wide to narrow: level j's logits enter the loss of every size >= j.
      for (int level = static_cast<int>(levels) - 1; level >= 0; --level) {
        Tensor gradient = probabilities[level].narrow(0, 0, rows);  // [b, N + 1]
        if (level + 1 < levels) gradient.add_(probabilities[level + 1].narrow(0, 0, rows));
        const Tensor z_level = Columns(z_block, sizes.begin(level), sizes.end(level));
        const Tensor items_level = Columns(items, sizes.begin(level), sizes.end(level));
        Tensor dz_level = Columns(dz.narrow(0, begin, rows), sizes.begin(level), sizes.end(level));
        Tensor ditems_level = Columns(ditems, sizes.begin(level), sizes.end(level));
        torch::mm_out(dz_level, gradient, items_level);
        if (begin == 0) {
          torch::mm_out(ditems_level, gradient.t(), z_level);
        } else {
          ditems_level.addmm_(gradient.t(), z_level);
        }
      }
    }
    ctx->save_for_backward({dz, ditems});
    return torch::full({}, loss, z.options());
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    return {saved[0] * grads[0], saved[1] * grads[0], Tensor(), Tensor(), Tensor(), Tensor()};
  }

 private:
  // Turns `logits` into scale * (softmax(logits) - onehot(labels)) and adds scale * cross-entropy
  // to `loss`.
  static void SoftmaxInPlace(Tensor logits, Tensor log_p, const Tensor& labels, double scale,
                             double& loss) {
    torch::_log_softmax_out(log_p, logits, 1, /*half_to_float=*/false);
    loss -= scale * log_p.gather(1, labels).sum(torch::kDouble).item<double>();
    torch::exp_out(logits, log_p);
    logits.mul_(scale);
    logits.scatter_add_(1, labels, torch::full_like(labels, -scale, logits.options()));
  }
};

}  // namespace

int64_t RaggedWeights(const NestedSizes& sizes) {
  int64_t count = 0;
  for (int level = 0; level < sizes.levels(); ++level) {
    count += static_cast<int64_t>(sizes.width(level)) * sizes.end(level);
  }
  return count;
}

Tensor RaggedLevel(const Tensor& weight, const NestedSizes& sizes, int level) {
  int64_t at = 0;
  for (int below = 0; below < level; ++below)
    at += static_cast<int64_t>(sizes.width(below)) * sizes.end(below);
  const int64_t width = sizes.width(level);
  const int64_t columns = sizes.end(level);
  return weight.narrow(0, at, width * columns).view({width, columns});
}

Tensor NestedLinear(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const NestedSizes& sizes) {
  // An undefined tensor is not a legal argument of apply.
  return NestedLinearFunction::apply(
      x, weight, bias.defined() ? c10::optional<Tensor>(bias) : c10::nullopt, sizes);
}

Tensor NestedLayerNorm(const Tensor& x, const Tensor& scale, const Tensor& shift,
                       const NestedSizes& sizes) {
  std::vector<int64_t> widths;
  for (int level = 0; level < sizes.levels(); ++level) widths.push_back(sizes.width(level));
  std::vector<Tensor> outputs = torch::split_with_sizes(x, widths, 1);
  for (int level = 0; level < sizes.levels(); ++level) {
    const int64_t begin = sizes.begin(level);
    const int64_t width = sizes.width(level);
    Tensor& output = outputs[static_cast<size_t>(level)];
    output = torch::layer_norm(output, {width}, scale.narrow(0, begin, width),
                               shift.narrow(0, begin, width), kNormEpsilon);
  }
  return torch::cat(outputs, 1);
}

std::pair<Tensor, Tensor> LinearRecurrence(const Tensor& u_re, const Tensor& u_im,
                                           const Tensor& lambda_re, const Tensor& lambda_im,
                                           const std::vector<int64_t>& run_begins) {
  variable_list h = LinearRecurrenceFunction::apply(u_re, u_im, lambda_re, lambda_im, run_begins);
  return {h[0], h[1]};
}

Tensor NestedCrossEntropy(const Tensor& z, const Tensor& items, const Tensor& labels,
                          const NestedSizes& sizes, const std::vector<double>& size_weights,
                          int64_t memory_bytes) {
  return NestedCrossEntropyFunction::apply(z.contiguous(), items.contiguous(), labels, sizes,
                                           size_weights, memory_bytes);
}

}  // namespace nestrec
