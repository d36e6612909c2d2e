#include "model/nested_dropout.h"

#include <cmath>
#include <vector>

namespace nestrec {

NestedDropout::NestedDropout(const NestedSizes& sizes, double rate, double power,
                             torch::Device device)
    : rate_(rate) {
  if (rate == 0 || power == 0) return;
  std::vector<torch::Tensor> levels;
  for (int level = 0; level < sizes.levels(); ++level) {
    const double share = static_cast<double>(sizes.end(level)) / sizes.max_dim();
    levels.push_back(torch::full({sizes.width(level)}, 1 - rate * std::pow(share, power)));
  }
  kept_ = torch::cat(levels).to(device);
}

torch::Tensor NestedDropout::operator()(const torch::Tensor& x) const {
  if (rate_ == 0) return x;
  if (!kept_.defined()) return torch::dropout(x, rate_, /*train=*/true);
  const torch::Tensor kept = kept_.narrow(0, 0, x.size(1)).to(x.scalar_type());
  torch::Tensor factors;
  {
    const torch::NoGradGuard no_grad;
    factors = torch::rand_like(x).lt(kept).to(x.scalar_type()).div_(kept);
  }
  return x * factors;
}

}  // namespace nestrec
