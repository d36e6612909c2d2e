// The optimizer against libtorch's AdamW and gradient clipping.
#include "model/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

namespace nestrec {
namespace {

using torch::Tensor;

Network SmallNetwork() {
  return Network({.sizes = *NestedSizes::Create({3, 5, 12}), .blocks = 1, .feature_width = 7},
                 Random(1, 0));
}

void FillGradients(NetworkParameters& parameters, double size) {
  for (const auto& parameter : parameters.All()) {
    parameter.tensor->mutable_grad() = torch::randn_like(*parameter.tensor) * size;
  }
}

class OptimizerTest : public testing::TestWithParam<double> {};  // size of the gradients

TEST_P(OptimizerTest, StepsAsLibtorchsAdamWWithClipping) {
  torch::manual_seed(1);
  Network network = SmallNetwork();
  Network reference = SmallNetwork();
  Optimizer optimizer(network.parameters(),
                      {.weight_decay = 0.1, .epsilon = 1e-9, .clip_norm = 5.0});
  std::vector<Tensor> decayed;
  std::vector<Tensor> biases;
  std::vector<Tensor> all;
  for (const auto& parameter : reference.parameters().All()) {
    (parameter.is_bias ? biases : decayed).push_back(*parameter.tensor);
    all.push_back(*parameter.tensor);
  }
  const auto group = [](const std::vector<Tensor>& tensors, double decay) {
    auto options = std::make_unique<torch::optim::AdamWOptions>(1e-2);
    options->eps(1e-9).weight_decay(decay);
    return torch::optim::OptimizerParamGroup(tensors, std::move(options));
  };
  std::vector<torch::optim::OptimizerParamGroup> groups = {group(decayed, 0.1), group(biases, 0)};
  torch::optim::AdamW adamw(groups, torch::optim::AdamWOptions(1e-2));
  for (int step = 0; step < 5; ++step) {
    FillGradients(network.parameters(), GetParam());
    const auto own = network.parameters().All();
    for (size_t i = 0; i < all.size(); ++i) all[i].mutable_grad() = own[i].tensor->grad().clone();
    const double norm = optimizer.Step(1e-2);
    const double expected = torch::nn::utils::clip_grad_norm_(all, 5.0);
    adamw.step();
    EXPECT_NEAR(norm, expected, 1e-5 * expected);
  }
  const auto own = network.parameters().All();
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_LE((*own[i].tensor - all[i]).abs().max().item<double>(), 2e-6) << own[i].name;
  }
  EXPECT_EQ(optimizer.steps(), 5);
}

INSTANTIATE_TEST_SUITE_P(BelowAndAboveTheClippingNorm, OptimizerTest, testing::Values(1e-3, 1.0));

TEST(OptimizerBadInputTest, LeavesEverythingAloneWhenTheNormIsNotFinite) {
  Network network = SmallNetwork();
  Optimizer optimizer(network.parameters(), {});
  FillGradients(network.parameters(), 1.0);
  network.parameters().projector.mutable_grad()[2][3] = std::numeric_limits<float>::quiet_NaN();
  const Tensor before = network.parameters().projector.detach().clone();
  EXPECT_TRUE(std::isnan(optimizer.Step(1e-2)));
  EXPECT_EQ(optimizer.not_finite(), network.parameters().All()[0].name);
  EXPECT_TRUE(torch::equal(network.parameters().projector, before));
  EXPECT_EQ(optimizer.steps(), 0);
  for (const Optimizer::Moment& moment : optimizer.moments()) {
    EXPECT_EQ(moment.tensor.abs().max().item<float>(), 0.0f) << moment.name;
  }
}

TEST(OptimizerThreadsTest, UpdateDoesNotDependOnTheThreadCount) {
  torch::manual_seed(2);
  std::vector<Tensor> results;
  const Tensor gradient = torch::randn({12, 8192});  // large enough to be shared out
  for (const int threads : {1, 3}) {
    at::set_num_threads(threads);
    Network network({.sizes = *NestedSizes::Create({3, 5, 12}), .feature_width = 8192},
                    Random(1, 0));
    Optimizer optimizer(network.parameters(), {});
    network.parameters().projector.mutable_grad() = gradient.clone();
    optimizer.Step(1e-2);
    results.push_back(network.parameters().projector.detach().clone());
  }
  EXPECT_LE((results[0] - results[1]).abs().max().item<float>(), 1e-7);
}

}  // namespace
}  // namespace nestrec
