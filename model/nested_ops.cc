#include "model/nested_ops.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "model/saved_arguments.h"

namespace nestrec {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr double kNormEpsilon = 1e-5;
constexpr int64_t kMinPositionsPerBlock = 16;

struct NestedLinearFunction : torch::autograd::Function<NestedLinearFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const c10::optional<Tensor>& bias, const NestedSizes& sizes,
                        const Arithmetic& arithmetic) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["has_bias"] = bias.has_value();
    Save(sizes, arithmetic, ctx);
    Tensor y = bias.has_value() ? bias->repeat({x.size(0), 1})
                                : torch::empty({x.size(0), sizes.max_dim()}, x.options());
    NestedProduct(y, x, weight, sizes, bias.has_value() ? 1 : 0, arithmetic);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const NestedSizes sizes = SavedSizes(ctx);
    const Arithmetic arithmetic = SavedArithmetic(ctx);
    const Tensor dy = grads[0].contiguous();  // [P, D]
    Tensor dx = torch::zeros_like(saved[0]);
    AddNestedInputGradient(dx, dy, saved[1], sizes, arithmetic);
    const Tensor dweight = NestedWeightGradient(dy, saved[0], sizes, arithmetic);
    const bool has_bias = ctx->saved_data["has_bias"].toBool();
    return {dx, dweight, has_bias ? dy.sum(0) : Tensor(), Tensor(), Tensor()};
  }
};

struct FrozenInputLinearFunction : torch::autograd::Function<FrozenInputLinearFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const Tensor& bias, const Arithmetic& arithmetic) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["precision"] = static_cast<int64_t>(arithmetic.precision);
    ctx->saved_data["portable"] = arithmetic.portable;
    Tensor y = bias.repeat({x.size(0), 1});
    MultiplyInto(y, x, Op::kNone, weight, Op::kTranspose, 1, arithmetic);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor dy = grads[0].contiguous();  // [P, D]
    Tensor dweight = torch::empty_like(saved[1]);
    MultiplyInto(dweight, dy, Op::kTranspose, saved[0], Op::kNone, 0, SavedArithmetic(ctx));
    return {Tensor(), dweight, dy.sum(0), Tensor()};
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

// By libtorch's operations, for any device, from a table of item embeddings.
struct TableCrossEntropyFunction : torch::autograd::Function<TableCrossEntropyFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& z, const Tensor& items,
                        const Tensor& labels, const c10::optional<Tensor>& offset,
                        const NestedSoftmaxOptions& options) {
    const NestedSizes& sizes = options.sizes;
    const int64_t positions = z.size(0);
    const int64_t classes = items.size(0);
    const int levels = sizes.levels();
    const int64_t row_bytes = (levels + 2) * classes * static_cast<int64_t>(z.element_size());
    const int64_t block = std::clamp<int64_t>(
        options.memory_bytes / row_bytes, std::min(kMinPositionsPerBlock, positions), positions);
    Tensor dz = torch::empty_like(z);
    Tensor ditems = torch::zeros_like(items);
    Tensor logits = torch::empty({levels, block, classes}, z.options());
    // On the device until the end: each number brought here is a wait for it.
    Tensor loss = torch::zeros({}, z.options().dtype(torch::kFloat64));
    for (int64_t begin = 0; begin < positions; begin += block) {
      const int64_t rows = std::min(block, positions - begin);
      const Tensor z_block = z.narrow(0, begin, rows);                        // [b, D]
      const Tensor label_block = labels.narrow(0, begin, rows).unsqueeze(1);  // [b, 1]
      // Narrow to wide: the logits of each size.
      for (int level = 0; level < levels; ++level) {
        Tensor of_level = logits[level].narrow(0, 0, rows);  // [b, N + 1]
        const Tensor z_level = Columns(z_block, sizes.begin(level), sizes.end(level));
        const Tensor items_level = Columns(items, sizes.begin(level), sizes.end(level));
        if (level == 0) {
          torch::mm_out(of_level, z_level, items_level.t());
        } else {
          torch::addmm_out(of_level, logits[level - 1].narrow(0, 0, rows), z_level,
                           items_level.t());
        }
      }
      // Wide to narrow: level j's logits enter the loss of every size >= j.
      Tensor teacher;
      for (int level = levels - 1; level >= 0; --level) {
        Tensor gradient = logits[level].narrow(0, 0, rows);  // [b, N + 1]
        const size_t at = static_cast<size_t>(level);
        const double scale =
            options.inverse_temperatures.empty() ? 1.0 : options.inverse_temperatures[at];
        const double soft = level + 1 == levels ? 0.0 : options.distillation;
        gradient.mul_(scale);
        if (offset.has_value()) gradient.add_(*offset);
        const Tensor log_p = torch::log_softmax(gradient, 1);
        if (level + 1 == levels && options.distillation > 0) teacher = log_p.exp();
        const double weight = options.size_weights[at] / static_cast<double>(positions);
        loss.sub_(log_p.gather(1, label_block).sum(torch::kFloat64), weight * (1 - soft));
        torch::exp_out(gradient, log_p);
        if (soft > 0) {
          loss.sub_((teacher * log_p).sum(torch::kFloat64), weight * soft);
          gradient.sub_(teacher, soft);
        }
        gradient.scatter_add_(1, label_block,
                              torch::full_like(label_block, soft - 1, gradient.options()));
        gradient.mul_(weight * scale);
        if (level + 1 < levels) gradient.add_(logits[level + 1].narrow(0, 0, rows));
        const Tensor z_level = Columns(z_block, sizes.begin(level), sizes.end(level));
        const Tensor items_level = Columns(items, sizes.begin(level), sizes.end(level));
        Tensor dz_level = Columns(dz.narrow(0, begin, rows), sizes.begin(level), sizes.end(level));
        torch::mm_out(dz_level, gradient, items_level);
        Columns(ditems, sizes.begin(level), sizes.end(level)).addmm_(gradient.t(), z_level);
      }
    }
    ctx->save_for_backward({dz, ditems});
    return loss.to(z.scalar_type());
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    return {saved[0] * grads[0], saved[1] * grads[0], Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

// In nestrec, not in the nameless namespace, as NestedCrossEntropy's friend.
struct FusedCrossEntropyFunction : torch::autograd::Function<FusedCrossEntropyFunction> {
  // `residual` and `bias` take part as inputs so that autograd knows them; `owner` outlives the
  // call, and nothing of it is needed on the way back.
  static Tensor forward(AutogradContext* ctx, const Tensor& z, const Tensor& features,
                        const Tensor& projector, const Tensor& bias,
                        const c10::optional<Tensor>& residual, const c10::optional<Tensor>& offset,
                        const c10::optional<Tensor>& half_features, const Tensor& labels,
                        NestedCrossEntropy* owner) {
    Tensor dz = torch::empty_like(z);
    Tensor dprojector = torch::empty_like(projector);
    Tensor dresidual = residual.has_value() ? torch::empty_like(*residual) : Tensor();
    double loss = 0;
    const auto compute = [&](auto& softmax, auto zero) {
      using T = decltype(zero);
      loss = softmax.Compute(
          {.count = features.size(0),
           .feature_width = features.size(1),
           .features = features.data_ptr<T>(),
           .projector = projector.data_ptr<T>(),
           .residual = residual.has_value() ? residual->data_ptr<T>() : nullptr,
           .offset = offset.has_value() ? offset->data_ptr<T>() : nullptr,
           .half_features = half_features.has_value()
                                ? static_cast<const Bfloat16*>(half_features->data_ptr())
                                : nullptr},
          z.data_ptr<T>(), {labels.data_ptr<int64_t>(), static_cast<size_t>(labels.numel())},
          {.z = dz.data_ptr<T>(),
           .projector = dprojector.data_ptr<T>(),
           .residual = residual.has_value() ? dresidual.data_ptr<T>() : nullptr});
      owner->flops_ = softmax.flops();
    };
    if (z.scalar_type() == torch::kFloat64) {
      compute(owner->double_, 0.0);
    } else {
      compute(owner->single_, 0.0f);
    }
    ctx->save_for_backward({dz, dprojector, torch::zeros_like(bias), dresidual});
    return torch::full({}, loss, z.options());
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    // A loss that is the root of the graph, the usual case, spares a pass over all gradients.
    const bool is_root = grads[0].item<double>() == 1.0;
    const auto scaled = [&](const Tensor& gradient) {
      return is_root || !gradient.defined() ? gradient : gradient * grads[0];
    };
    return {scaled(saved[0]), Tensor(), scaled(saved[1]), saved[2], scaled(saved[3]),
            Tensor(),         Tensor(), Tensor(),         Tensor()};
  }
};

Tensor NestedLinear(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const NestedSizes& sizes, const Arithmetic& arithmetic) {
  // An undefined tensor is not a legal argument of apply.
  return NestedLinearFunction::apply(
      x, weight, bias.defined() ? c10::optional<Tensor>(bias) : c10::nullopt, sizes, arithmetic);
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

std::pair<Tensor, Tensor> LinearRecurrenceByDoubling(const Tensor& u_re, const Tensor& u_im,
                                                     const Tensor& lambda_re,
                                                     const Tensor& lambda_im,
                                                     const std::vector<int64_t>& run_begins) {
  // How far each position is into its run.
  std::vector<int64_t> depths;
  int64_t longest = 0;
  for (size_t run = 0; run + 1 < run_begins.size(); ++run) {
    const int64_t length = run_begins[run + 1] - run_begins[run];
    longest = std::max(longest, length);
    for (int64_t depth = 0; depth < length; ++depth) depths.push_back(depth);
  }
  const Tensor depth = torch::tensor(depths, torch::kInt64).to(u_re.device()).unsqueeze(1);
  Tensor h_re = u_re;
  Tensor h_im = u_im;
  Tensor power_re = lambda_re;  // lambda^reach
  Tensor power_im = lambda_im;
  // Before each round, h_t holds the sum over the last `reach` inputs of its run.
  for (int64_t reach = 1; reach < longest; reach *= 2) {
    const auto shifted = [&](const Tensor& h) {
      const Tensor earlier =
          torch::constant_pad_nd(h.narrow(0, 0, h.size(0) - reach), {0, 0, reach, 0});
      return torch::where(depth >= reach, earlier, torch::zeros_like(earlier));
    };
    const Tensor earlier_re = shifted(h_re);
    const Tensor earlier_im = shifted(h_im);
    h_re = h_re + power_re * earlier_re - power_im * earlier_im;
    h_im = h_im + power_re * earlier_im + power_im * earlier_re;
    const Tensor squared_re = power_re * power_re - power_im * power_im;
    power_im = 2 * power_re * power_im;
    power_re = squared_re;
  }
  return {h_re, h_im};
}

std::pair<Tensor, Tensor> LinearRecurrence(const Tensor& u_re, const Tensor& u_im,
                                           const Tensor& lambda_re, const Tensor& lambda_im,
                                           const std::vector<int64_t>& run_begins, bool portable) {
  if (portable || !u_re.device().is_cpu()) {
    return LinearRecurrenceByDoubling(u_re, u_im, lambda_re, lambda_im, run_begins);
  }
  variable_list h = LinearRecurrenceFunction::apply(u_re, u_im, lambda_re, lambda_im, run_begins);
  return {h[0], h[1]};
}

Tensor FrozenInputLinear(const Tensor& x, const Tensor& weight, const Tensor& bias,
                         const Arithmetic& arithmetic) {
  return FrozenInputLinearFunction::apply(x.contiguous(), weight, bias, arithmetic);
}

Tensor ItemEmbeddings(const ItemTensors& items) {
  const Tensor content = FrozenInputLinear(items.features, items.projector, items.bias);
  return items.residual.defined() ? content + items.residual : content;
}

NestedCrossEntropy::NestedCrossEntropy(const NestedSoftmaxOptions& options, bool portable)
    : options_(options), portable_(portable), single_(options), double_(options) {}

Tensor NestedCrossEntropy::operator()(const Tensor& z, const ItemTensors& items,
                                      const Tensor& labels) {
  if (portable_ || !z.device().is_cpu()) {
    // The table and its gradient, then the scores and both of theirs.
    const int64_t width = items.features.size(1);
    flops_ = (4 * width + 6 * z.size(0)) * items.features.size(0) * z.size(1);
    return FromTable(z, ItemEmbeddings(items), labels.to(z.device()), items.offset);
  }
  const auto optional = [](const Tensor& tensor) {
    return tensor.defined() ? c10::optional<Tensor>(tensor) : c10::nullopt;
  };
  return FusedCrossEntropyFunction::apply(
      z.contiguous(), items.features, items.projector, items.bias, optional(items.residual),
      optional(items.offset), optional(items.half_features), labels.contiguous(), this);
}

Tensor NestedCrossEntropy::FromTable(const Tensor& z, const Tensor& items, const Tensor& labels,
                                     const Tensor& offset) const {
  return TableCrossEntropyFunction::apply(
      z.contiguous(), items.contiguous(), labels,
      offset.defined() ? c10::optional<Tensor>(offset) : c10::nullopt, options_);
}

}  // namespace nestrec
