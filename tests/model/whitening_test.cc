#include "model/whitening.h"

#include <gtest/gtest.h>

#include "model/network.h"

namespace nestrec {
namespace {

using torch::Tensor;

// [items + 1, F] with correlated columns far from the origin; row 0 zeros.
Tensor Features(int64_t items, int64_t width) {
  torch::manual_seed(4);
  const Tensor mixing = torch::randn({width, width});
  Tensor features = torch::randn({items + 1, width}).matmul(mixing) + 3.0;
  features[0].zero_();
  return features;
}

Tensor Covariance(const Tensor& rows) {
  const Tensor centred = rows - rows.mean(0);
  return torch::mm(centred.t(), centred) / static_cast<double>(rows.size(0));
}

double MaxDifference(const Tensor& a, const Tensor& b) {
  return (a - b).abs().max().item<double>();
}

TEST(WhiteningTest, ColumnsOfAModalityAreUncorrelatedWithVarianceOfAboutOne) {
  const Tensor features = Features(400, 9);
  const Tensor whitened = Whitening(features, {4, 5}).Apply(features);
  EXPECT_EQ(whitened[0].abs().max().item<float>(), 0.0f);
  for (const auto& [begin, width] : {std::pair(0, 4), std::pair(4, 5)}) {
    const Tensor covariance = Covariance(whitened.slice(0, 1).narrow(1, begin, width));
    const Tensor variances = covariance.diag();
    EXPECT_LE(MaxDifference(covariance, variances.diag()), 1e-3);
    EXPECT_LE(variances.max().item<float>(), 1.001f);
    EXPECT_GE(variances.min().item<float>(), 0.3f);  // damped, not blown up
  }
}

// Some thousand rows are one block, four times as many are three, the last one short: their mean
// and covariance are the same. A direction may come out with the other sign.
TEST(WhiteningTest, BlocksOfRowsGiveWhatOneBlockGives) {
  constexpr int64_t kRows = 10'000;
  const Tensor once = Features(kRows, 9);
  const Tensor items = once.slice(0, 1);
  const Tensor repeated = torch::cat({once, items, items, items});
  const Tensor expected = Whitening(once, {4, 5}).Apply(once).abs();
  const Tensor whitened = Whitening(repeated, {4, 5}).Apply(repeated).abs();
  EXPECT_EQ(whitened[0].max().item<float>(), 0.0f);
  for (int64_t copy = 0; copy < 4; ++copy) {
    EXPECT_LE(MaxDifference(whitened.slice(0, 1 + copy * kRows, 1 + (copy + 1) * kRows),
                            expected.slice(0, 1)),
              1e-4)
        << "copy " << copy;
  }
  EXPECT_LE(MaxDifference(PrincipalProjector(repeated, 5).weight.abs(),
                          PrincipalProjector(once, 5).weight.abs()),
            1e-5);
}

TEST(WhiteningTest, AFoldedProjectorReadsRawFeatures) {
  const Tensor features = Features(100, 6);
  const Whitening whitening(features, {6});
  const Tensor weight = torch::randn({3, 6});
  const Tensor bias = torch::randn({3});
  const Projector raw = whitening.Fold(weight, bias);
  const Tensor expected = torch::addmm(bias, whitening.Apply(features).slice(0, 1), weight.t());
  const Tensor actual = torch::addmm(raw.bias, features.slice(0, 1), raw.weight.t());
  EXPECT_LE(MaxDifference(actual, expected), 1e-4);
}

TEST(PrincipalProjectorTest, OutputsAreCentredUncorrelatedAndInOrderOfVariance) {
  const Tensor features = Features(300, 7);
  const Projector projector = PrincipalProjector(features, 5);
  ASSERT_EQ(projector.weight.sizes(), (std::vector<int64_t>{5, 7}));
  EXPECT_LE(MaxDifference(torch::mm(projector.weight, projector.weight.t()), torch::eye(5)), 1e-5);
  const Tensor outputs = torch::addmm(projector.bias, features.slice(0, 1), projector.weight.t());
  EXPECT_LE(outputs.mean(0).abs().max().item<float>(), 1e-4f);
  const Tensor covariance = Covariance(outputs);
  const Tensor variances = covariance.diag();
  EXPECT_LE(MaxDifference(covariance, variances.diag()), 1e-3 * variances.max().item<double>());
  EXPECT_TRUE((variances.slice(0, 1) <= variances.slice(0, 0, 4) * 1.001).all().item<bool>());
  // The five directions hold all but the two smallest eigenvalues' variance.
  const Tensor all = torch::linalg_eigvalsh(Covariance(features.slice(0, 1)));
  EXPECT_NEAR(variances.sum().item<double>(), all.slice(0, 2).sum().item<double>(),
              1e-3 * all.sum().item<double>());
}

TEST(PrincipalProjectorTest, HasNoMoreRowsThanThereAreColumns) {
  EXPECT_EQ(PrincipalProjector(Features(30, 4), 16).weight.size(0), 4);
}

TEST(PrincipalProjectorTest, TheNetworkStartsAtItTimesTheScale) {
  const Tensor features = Features(30, 4);
  Network network({.sizes = *NestedSizes::Create({2, 8}),
                   .feature_width = 4,
                   .projector_scale = 0.5,
                   .branch_scale = 0},
                  Random(1, 0));
  const Projector start = PrincipalProjector(features, 8);
  network.StartProjectorAt(start.weight, start.bias);
  const torch::NoGradGuard no_grad;
  const Tensor items = network.ItemEmbeddings(features);
  EXPECT_LE(MaxDifference(items.narrow(1, 0, 4),
                          0.5 * torch::addmm(start.bias, features, start.weight.t())),
            1e-5);
  // With branches that begin at nothing, z is the last item's embedding.
  PackedBatch batch;
  batch.Append(std::vector<int64_t>{0, 3, 9}, std::vector<int64_t>{3, 9, 20});
  const Tensor z = network.Forward(batch, features, /*training=*/true);
  EXPECT_LE(MaxDifference(z[2], items[9]), 1e-6);
}

}  // namespace
}  // namespace nestrec
