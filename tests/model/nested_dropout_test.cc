#include "model/nested_dropout.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nestrec {
namespace {

const NestedSizes kSizes = *NestedSizes::Create({4, 16, 64});

TEST(NestedDropoutTest, ByDefaultAndAtRateZeroDropsNothing) {
  const torch::Tensor x = torch::randn({5, 64});
  EXPECT_TRUE(torch::equal(NestedDropout()(x), x));
  EXPECT_TRUE(torch::equal(NestedDropout(kSizes, 0, 0.5, torch::kCPU)(x), x));
}

TEST(NestedDropoutTest, NarrowLevelsAreDroppedLess) {
  torch::manual_seed(1);
  const torch::Tensor x = torch::ones({20000, 64});
  const torch::Tensor y = NestedDropout(kSizes, 0.5, 0.5, torch::kCPU)(x);
  for (int level = 0; level < kSizes.levels(); ++level) {
    const double rate = 0.5 * std::sqrt(kSizes.end(level) / 64.0);  // 0.125, 0.25, 0.5
    const torch::Tensor columns = y.narrow(1, kSizes.begin(level), kSizes.width(level));
    const double dropped = columns.eq(0).to(torch::kFloat64).mean().item<double>();
    EXPECT_NEAR(dropped, rate, 0.01) << level;
    EXPECT_NEAR(columns.mean().item<double>(), 1.0, 0.01) << level;  // as without dropout
    EXPECT_NEAR(columns.max().item<double>(), 1 / (1 - rate), 1e-6) << level;
  }
}

TEST(NestedDropoutTest, PowerZeroIsPlainDropout) {
  const torch::Tensor x = torch::randn({50, 64});
  torch::manual_seed(2);
  const torch::Tensor y = NestedDropout(kSizes, 0.3, 0, torch::kCPU)(x);
  torch::manual_seed(2);
  EXPECT_TRUE(torch::equal(y, torch::dropout(x, 0.3, true)));
}

TEST(NestedDropoutTest, GradientsPassWhereValuesDo) {
  torch::manual_seed(3);
  const torch::Tensor x = torch::randn({50, 16}).requires_grad_();
  const torch::Tensor y = NestedDropout(kSizes, 0.6, 0.25, torch::kCPU)(x);
  y.sum().backward();
  EXPECT_TRUE(torch::allclose(x.grad() * x.detach(), y.detach()));
  EXPECT_GT(y.eq(0).sum().item<int64_t>(), 0);
}

}  // namespace
}  // namespace nestrec
