// AdamW (Loshchilov & Hutter 2019) as the published recipe uses it: weight decay on everything but
// biases, global gradient norm clipped first.
//
// Errors are thrown as libtorch does. Thread safety: none.
#pragma once

#include <torch/torch.h>

#include <cstdint>
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
  // norm before clipping. A norm that is not finite leaves all as it was, and not_finite() says
  // where it comes from.
  double Step(double lr);
  // The first parameter whose gradient was not finite in the last step; empty where all were, and
  // where only their sum was not.
  const std::string& not_finite() const { return not_finite_; }

  // What resuming needs beside the parameters: the moments, under names of their own, and the
  // number of steps made. The tensors are the optimizer's own.
  struct Moment {
    std::string name;
    torch::Tensor tensor;
  };
  const std::vector<Moment>& moments() const { return moments_; }
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 private:
  struct Slot {
    std::string name;
    torch::Tensor parameter, m, v;
    double weight_decay;
  };
  OptimizerOptions options_;
  std::vector<Slot> slots_;
  std::vector<Moment> moments_;
  int64_t steps_ = 0;
  std::string not_finite_;
};

}  // namespace nestrec
