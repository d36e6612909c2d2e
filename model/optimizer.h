// AdamW (Loshchilov & Hutter 2019) as the published recipe uses it: weight decay on everything but
// biases, global gradient norm clipped first. A thin layer over torch::optim::AdamW.
//
// Errors are thrown as libtorch does. Thread safety: none.
#pragma once

#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "model/network.h"

namespace nestrec {

struct OptimizerOptions {
  double weight_decay = 0.01;
  double epsilon = 1e-9;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double clip_norm = 5.0;  // 0: no clipping
};

class Optimizer {
 public:
  // `parameters` must outlive the optimizer.
  Optimizer(NetworkParameters& parameters, const OptimizerOptions& options);

  void ZeroGradients();
  // Clips the gradients to the global norm, makes one step with learning rate `lr` and returns the
  // norm before clipping.
  double Step(double lr);

  // The moments and step counts as opaque bytes, for resuming.
  std::string Serialize() const;
  void Restore(const std::string& bytes);

 private:
  OptimizerOptions options_;
  std::vector<torch::Tensor> all_;
  std::unique_ptr<torch::optim::AdamW> adamw_;
};

}  // namespace nestrec
