#include "model/optimizer.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/adamw.h"

namespace nestrec {
namespace {

// As torch::nn::utils::clip_grad_norm_: keeps a norm just above the limit from rounding past it.
constexpr double kClipEpsilon = 1e-6;

}  // namespace

Optimizer::Optimizer(NetworkParameters& parameters, const OptimizerOptions& options)
    : options_(options) {
  for (const NetworkParameters::Named& parameter : parameters.All()) {
    const torch::Tensor& tensor = *parameter.tensor;
    Slot slot = {.name = parameter.name,
                 .parameter = tensor,
                 .m = torch::zeros_like(tensor.detach()),
                 .v = torch::zeros_like(tensor.detach()),
                 .weight_decay = parameter.is_bias ? 0.0 : options.weight_decay};
    moments_.push_back({absl::StrCat("adam.m.", parameter.name), slot.m});
    moments_.push_back({absl::StrCat("adam.v.", parameter.name), slot.v});
    slots_.push_back(std::move(slot));
  }
}

void Optimizer::ZeroGradients() {
  for (Slot& slot : slots_) slot.parameter.mutable_grad().reset();
}

double Optimizer::Step(double lr) {
  const torch::NoGradGuard no_grad;
  // Brought here together: each number from a device is a wait for it.
  std::vector<torch::Tensor> norms;
  std::vector<const Slot*> slots;  // of the norms
  for (const Slot& slot : slots_) {
    if (!slot.parameter.grad().defined()) continue;
    norms.push_back(torch::linalg_vector_norm(slot.parameter.grad(), 2));
    slots.push_back(&slot);
  }
  not_finite_.clear();
  double squared = 0;
  if (!norms.empty()) {
    const torch::Tensor here = torch::stack(norms).to(torch::kCPU, torch::kFloat64);
    const std::span<const double> values(here.data_ptr<double>(), norms.size());
    for (size_t i = 0; i < values.size(); ++i) {
      if (!std::isfinite(values[i]) && not_finite_.empty()) not_finite_ = slots[i]->name;
      squared += values[i] * values[i];
    }
  }
  const double norm = std::sqrt(squared);
  if (!std::isfinite(norm)) return norm;
  ++steps_;
  const double scale =
      options_.clip_norm > 0 ? std::min(1.0, options_.clip_norm / (norm + kClipEpsilon)) : 1.0;
  const double step_size = lr / (1.0 - std::pow(options_.beta1, static_cast<double>(steps_)));
  const double root_bias = std::sqrt(1.0 - std::pow(options_.beta2, static_cast<double>(steps_)));
  for (Slot& slot : slots_) {
    if (!slot.parameter.grad().defined()) continue;
    const torch::Tensor gradient = slot.parameter.grad().contiguous();
    if (slot.parameter.device().is_cpu() && slot.parameter.scalar_type() == torch::kFloat32) {
      AdamWUpdate({.gradient_scale = static_cast<float>(scale),
                   .beta1 = static_cast<float>(options_.beta1),
                   .beta2 = static_cast<float>(options_.beta2),
                   .decay = static_cast<float>(1.0 - lr * slot.weight_decay),
                   .step_size = static_cast<float>(step_size),
                   .root_bias = static_cast<float>(root_bias),
                   .epsilon = static_cast<float>(options_.epsilon)},
                  slot.parameter.numel(), gradient.data_ptr<float>(), slot.m.data_ptr<float>(),
                  slot.v.data_ptr<float>(), slot.parameter.data_ptr<float>());
      continue;
    }
    slot.m.mul_(options_.beta1).add_(gradient, (1.0 - options_.beta1) * scale);
    slot.v.mul_(options_.beta2)
        .addcmul_(gradient, gradient, (1.0 - options_.beta2) * scale * scale);
    slot.parameter.mul_(1.0 - lr * slot.weight_decay)
        .addcdiv_(slot.m, (slot.v.sqrt() / root_bias).add_(options_.epsilon), -step_size);
  }
  return norm;
}

}  // namespace nestrec
