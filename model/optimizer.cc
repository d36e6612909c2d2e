#include "model/optimizer.h"

#include <sstream>

namespace nestrec {

Optimizer::Optimizer(NetworkParameters& parameters, const OptimizerOptions& options)
    : options_(options) {
  std::vector<torch::Tensor> decayed;
  std::vector<torch::Tensor> biases;
  for (const NetworkParameters::Named& parameter : parameters.All()) {
    (parameter.is_bias ? biases : decayed).push_back(*parameter.tensor);
    all_.push_back(*parameter.tensor);
  }
  const auto group = [&](std::vector<torch::Tensor> tensors, double weight_decay) {
    auto settings =
        std::make_unique<torch::optim::AdamWOptions>(1e-3);  // Step sets the learning rate
    settings->betas({options.beta1, options.beta2}).eps(options.epsilon).weight_decay(weight_decay);
    return torch::optim::OptimizerParamGroup(std::move(tensors), std::move(settings));
  };
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.push_back(group(std::move(decayed), options.weight_decay));
  groups.push_back(group(std::move(biases), 0.0));
  adamw_ =
      std::make_unique<torch::optim::AdamW>(std::move(groups), torch::optim::AdamWOptions(1e-3));
}

void Optimizer::ZeroGradients() {
  for (torch::Tensor& tensor : all_) tensor.mutable_grad().reset();
}

double Optimizer::Step(double lr) {
  const double norm = torch::nn::utils::clip_grad_norm_(
      all_, options_.clip_norm > 0 ? options_.clip_norm : std::numeric_limits<double>::infinity());
  for (torch::optim::OptimizerParamGroup& group : adamw_->param_groups()) {
    static_cast<torch::optim::AdamWOptions&>(group.options()).lr(lr);
  }
  adamw_->step();
  return norm;
}

std::string Optimizer::Serialize() const {
  std::ostringstream stream;
  torch::save(*adamw_, stream);
  return stream.str();
}

void Optimizer::Restore(const std::string& bytes) {
  std::istringstream stream(bytes);
  torch::load(*adamw_, stream);
}

}  // namespace nestrec
