// Every hand-written backward pass against autograd of the plain formula, in double precision.
#include "model/nested_ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/model/autograd_oracle.h"

namespace nestrec {
namespace {

using torch::Tensor;

class NestedOpsTest : public testing::Test {
 protected:
  NestedOpsTest() : sizes_(*NestedSizes::Create({3, 5, 12})) { torch::manual_seed(5); }

  NestedSizes sizes_;
};

TEST_F(NestedOpsTest, NestedLinearIsABlockTriangularProduct) {
  const Tensor x = Leaf({7, 12});
  const Tensor weight = Leaf({RaggedWeights(sizes_)});
  const Tensor bias = Leaf({12});
  CompareWithAutograd(
      {x, weight, bias}, [&] { return NestedLinear(x, weight, bias, sizes_); },
      [&] { return torch::addmm(bias, x, Dense(weight, sizes_).t()); });
  CompareWithAutograd(
      {x, weight}, [&] { return NestedLinear(x, weight, Tensor(), sizes_); },
      [&] { return torch::mm(x, Dense(weight, sizes_).t()); });
}

TEST_F(NestedOpsTest, NestedLayerNormNormalisesEveryLevelOnItsOwn) {
  const Tensor x = Leaf({7, 12});
  const Tensor scale = Leaf({12});
  const Tensor shift = Leaf({12});
  const auto plain = [&] {
    std::vector<Tensor> levels;
    for (int level = 0; level < sizes_.levels(); ++level) {
      const Tensor part = x.narrow(1, sizes_.begin(level), sizes_.width(level));
      const Tensor mean = part.mean(1, true);
      const Tensor variance = (part - mean).pow(2).mean(1, true);
      levels.push_back((part - mean) / torch::sqrt(variance + 1e-5));
    }
    return torch::cat(levels, 1) * scale + shift;
  };
  CompareWithAutograd(
      {x, scale, shift}, [&] { return NestedLayerNorm(x, scale, shift, sizes_); }, plain);
}

TEST_F(NestedOpsTest, LinearRecurrenceMatchesTheComplexFormula) {
  const std::vector<int64_t> run_begins = {0, 1, 5, 6, 11};
  const Tensor u_re = Leaf({11, 12});
  const Tensor u_im = Leaf({11, 12});
  const Tensor lambda_re = (torch::rand({12}, torch::kFloat64) - 0.5).requires_grad_(true);
  const Tensor lambda_im = (torch::rand({12}, torch::kFloat64) - 0.5).requires_grad_(true);
  const auto plain = [&] {
    const Tensor lambda = torch::complex(lambda_re, lambda_im);
    const Tensor u = torch::complex(u_re, u_im);
    std::vector<Tensor> rows;
    for (size_t run = 0; run + 1 < run_begins.size(); ++run) {
      Tensor h = u[run_begins[run]];
      rows.push_back(h);
      for (int64_t p = run_begins[run] + 1; p < run_begins[run + 1]; ++p) {
        h = lambda * h + u[p];
        rows.push_back(h);
      }
    }
    return torch::cat({torch::real(torch::stack(rows)), torch::imag(torch::stack(rows))}, 1);
  };
  CompareWithAutograd(
      {u_re, u_im, lambda_re, lambda_im},
      [&] {
        const auto [h_re, h_im] =
            LinearRecurrenceByDoubling(u_re, u_im, lambda_re, lambda_im, run_begins);
        return torch::cat({h_re, h_im}, 1);
      },
      plain);
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    CompareWithAutograd(
        {u_re, u_im, lambda_re, lambda_im},
        [&] {
          const auto [h_re, h_im] = LinearRecurrence(u_re, u_im, lambda_re, lambda_im, run_begins);
          return torch::cat({h_re, h_im}, 1);
        },
        plain);
  }
}

TEST_F(NestedOpsTest, FrozenInputLinearIsAnAffineMap) {
  const Tensor x = torch::randn({7, 4}, torch::kFloat64);
  const Tensor weight = Leaf({12, 4});
  const Tensor bias = Leaf({12});
  CompareWithAutograd(
      {weight, bias}, [&] { return FrozenInputLinear(x, weight, bias); },
      [&] { return torch::addmm(bias, x, weight.t()); });
}

const std::vector<double> kSizeWeights = {0.2, 0.5, 0.3};

// The loss as nested_softmax.h writes it, every size's logits in full.
Tensor PlainCrossEntropy(const Tensor& z, const Tensor& items, const Tensor& labels,
                         const NestedSoftmaxOptions& options, const Tensor& offset = {}) {
  std::vector<Tensor> log_p;
  for (int level = 0; level < options.sizes.levels(); ++level) {
    const int64_t end = options.sizes.end(level);
    Tensor logits = torch::mm(z.narrow(1, 0, end), items.narrow(1, 0, end).t());
    if (!options.inverse_temperatures.empty()) {
      logits = logits * options.inverse_temperatures[static_cast<size_t>(level)];
    }
    if (offset.defined()) logits = logits + offset;
    log_p.push_back(torch::log_softmax(logits, 1));
  }
  const Tensor teacher = log_p.back().detach().exp();
  Tensor loss = torch::zeros({}, z.options());
  for (size_t level = 0; level < log_p.size(); ++level) {
    const double soft = level + 1 == log_p.size() ? 0.0 : options.distillation;
    const Tensor hard = log_p[level].gather(1, labels.unsqueeze(1)).mean();
    const Tensor distilled = (teacher * log_p[level]).sum(1).mean();
    loss = loss - kSizeWeights[level] * ((1 - soft) * hard + soft * distilled);
  }
  return loss;
}

TEST_F(NestedOpsTest, CrossEntropyFromATableIsTheMeanOverSizesOfTheFullSoftmax) {
  const Tensor z = Leaf({40, 12});
  const Tensor items = Leaf({9, 12});
  const Tensor labels = torch::randint(0, 9, {40}, torch::kInt64);
  // The least memory makes blocks of 16 positions: 40 = 16 + 16 + 8.
  for (const int64_t memory_bytes : {int64_t{1}, int64_t{1} << 20}) {
    const NestedSoftmaxOptions options = {
        .sizes = sizes_, .size_weights = kSizeWeights, .memory_bytes = memory_bytes};
    const NestedCrossEntropy loss(options);
    CompareWithAutograd(
        {z, items}, [&] { return loss.FromTable(z, items, labels); },
        [&] { return PlainCrossEntropy(z, items, labels, options); });
  }
}

TEST_F(NestedOpsTest, CrossEntropyFromATableTakesTemperaturesDistillationAndOffsets) {
  const Tensor z = Leaf({40, 12});
  const Tensor items = Leaf({9, 12});
  const Tensor offset = torch::randn({9}, torch::kFloat64);
  const Tensor labels = torch::randint(0, 9, {40}, torch::kInt64);
  const NestedSoftmaxOptions options = {.sizes = sizes_,
                                        .size_weights = kSizeWeights,
                                        .inverse_temperatures = {2.0, 1.5, 0.7},
                                        .distillation = 0.3};
  const NestedCrossEntropy loss(options);
  CompareWithAutograd(
      {z, items}, [&] { return loss.FromTable(z, items, labels, offset); },
      [&] { return PlainCrossEntropy(z, items, labels, options, offset); });
}

struct CrossEntropyCase {
  const char* name;
  int64_t positions;
  int64_t items;
  int64_t feature_width;
  bool residual;
  int64_t memory_bytes;
  bool offset = false;
  std::vector<double> inverse_temperatures = {};
  double distillation = 0;
};

class FusedCrossEntropyTest : public testing::TestWithParam<CrossEntropyCase> {};

TEST_P(FusedCrossEntropyTest, EqualsTheFullSoftmaxOverTheEmbeddingTable) {
  const CrossEntropyCase& c = GetParam();
  const NestedSizes sizes = *NestedSizes::Create({3, 5, 12});
  torch::manual_seed(7);
  ItemTensors items = {.features = torch::randn({c.items, c.feature_width}, torch::kFloat64),
                       .projector = Leaf({12, c.feature_width}),
                       .bias = Leaf({12}),
                       .residual = c.residual ? Leaf({c.items, 12}) : Tensor(),
                       .offset = c.offset ? torch::randn({c.items}, torch::kFloat64) : Tensor(),
                       .half_features = Tensor()};
  items.features[0].zero_();
  const Tensor z = Leaf({c.positions, 12});
  const Tensor labels = torch::randint(0, c.items, {c.positions}, torch::kInt64);
  const NestedSoftmaxOptions options = {.sizes = sizes,
                                        .size_weights = kSizeWeights,
                                        .inverse_temperatures = c.inverse_temperatures,
                                        .distillation = c.distillation,
                                        .memory_bytes = c.memory_bytes};
  NestedCrossEntropy loss(options);
  std::vector<Tensor> leaves = {z, items.projector, items.bias};
  if (c.residual) leaves.push_back(items.residual);
  for (int call = 0; call < 2; ++call) {  // the second call finds the first one's scratch
    CompareWithAutograd(
        leaves, [&] { return loss(z, items, labels); },
        [&] { return PlainCrossEntropy(z, ItemEmbeddings(items), labels, options, items.offset); });
  }
  EXPECT_GT(loss.flops(), 0);
}

// With 40 positions: 20 feature columns send every level by items, 4 the first and the last by
// features, 1 all of them. 300 positions make three blocks, a byte of memory blocks of 256 items.
constexpr int64_t kMuch = int64_t{1} << 26;
INSTANTIATE_TEST_SUITE_P(
    Shapes, FusedCrossEntropyTest,
    testing::Values(
        CrossEntropyCase{"ByItems", 40, 9, 20, false, kMuch},
        CrossEntropyCase{"ByBoth", 40, 9, 4, false, kMuch},
        CrossEntropyCase{"ByFeatures", 40, 9, 1, false, kMuch},
        CrossEntropyCase{"ByItemsWithResidual", 40, 9, 20, true, kMuch},
        CrossEntropyCase{"ByBothWithResidual", 40, 9, 4, true, kMuch},
        CrossEntropyCase{"PositionBlocks", 300, 70, 20, true, kMuch},
        CrossEntropyCase{"PositionBlocksByBoth", 300, 70, 2, true, kMuch},
        CrossEntropyCase{"ItemBlocks", 40, 700, 20, true, 1},
        CrossEntropyCase{"ItemBlocksByBoth", 40, 700, 4, true, 1},
        CrossEntropyCase{"ItemAndPositionBlocks", 1100, 700, 4, false, 1},
        CrossEntropyCase{"OnePosition", 1, 9, 4, false, kMuch},
        CrossEntropyCase{"Offsets", 40, 9, 4, true, kMuch, true},
        CrossEntropyCase{"Temperatures", 40, 9, 4, true, kMuch, true, {2, 1.5, .7}},
        CrossEntropyCase{"Distillation", 40, 9, 4, true, kMuch, true, {2, 1, .7}, 0.3},
        CrossEntropyCase{"DistillationByItems", 300, 70, 20, false, kMuch, false, {}, 1},
        CrossEntropyCase{"DistillationInItemBlocks", 40, 700, 4, true, 1, true, {2, 1, .7}, 0.3}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_F(NestedOpsTest, CrossEntropyScalesItsGradientWhenItIsNotTheRoot) {
  const ItemTensors items = {.features = torch::randn({9, 4}, torch::kFloat64),
                             .projector = Leaf({12, 4}),
                             .bias = Leaf({12}),
                             .residual = Tensor(),
                             .offset = Tensor(),
                             .half_features = Tensor()};
  const Tensor z = Leaf({5, 12});
  const Tensor labels = torch::randint(0, 9, {5}, torch::kInt64);
  const NestedSoftmaxOptions options = {.sizes = sizes_, .size_weights = kSizeWeights};
  NestedCrossEntropy loss(options);
  CompareWithAutograd(
      {z, items.projector}, [&] { return -3 * loss(z, items, labels); },
      [&] { return -3 * PlainCrossEntropy(z, ItemEmbeddings(items), labels, options); });
}

TEST_F(NestedOpsTest, CrossEntropyStaysFiniteForHugeScores) {
  const Tensor z = (torch::ones({4, 12}, torch::kFloat32) * 1e4).requires_grad_(true);
  const ItemTensors items = {.features = torch::randn({9, 12}),
                             .projector = torch::randn({12, 12}).requires_grad_(true),
                             .bias = torch::zeros({12}).requires_grad_(true),
                             .residual = Tensor(),
                             .offset = Tensor(),
                             .half_features = Tensor()};
  const Tensor labels = torch::tensor({1, 2, 3, 4}, torch::kInt64);
  NestedCrossEntropy cross_entropy({.sizes = sizes_, .size_weights = {0.3, 0.3, 0.4}});
  const Tensor loss = cross_entropy(z, items, labels);
  loss.backward();
  EXPECT_TRUE(std::isfinite(loss.item<double>()));
  EXPECT_TRUE(torch::isfinite(z.grad()).all().item<bool>());
}

TEST_F(NestedOpsTest, CrossEntropyInBfloat16IsCloseToFloat32) {
  if (!HasBfloat16()) GTEST_SKIP() << "this processor has no AVX-512 BF16";
  for (const bool by_features : {false, true}) {
    const int64_t positions = by_features ? 20 : 200;
    const int64_t width = by_features ? 16 : 200;
    const NestedSizes sizes = *NestedSizes::Create({8, 16, 64});
    ItemTensors items = {.features = torch::randn({500, width}),
                         .projector = (torch::randn({64, width}) / 8).requires_grad_(true),
                         .bias = torch::zeros({64}).requires_grad_(true),
                         .residual = (torch::randn({500, 64}) / 8).requires_grad_(true),
                         .offset = Tensor(),
                         .half_features = Tensor()};
    const Tensor z = (torch::randn({positions, 64}) / 8).requires_grad_(true);
    const Tensor labels = torch::randint(0, 500, {positions}, torch::kInt64);
    const std::vector<Tensor> leaves = {z, items.projector, items.residual};
    NestedSoftmaxOptions options = {.sizes = sizes, .size_weights = kSizeWeights};
    NestedCrossEntropy exact(options);
    options.precision = Precision::kBfloat16;
    NestedCrossEntropy rounded(options);
    const auto expected = torch::autograd::grad({exact(z, items, labels)}, leaves);
    const double loss = exact(z, items, labels).item<double>();
    for (const bool half : {false, true}) {
      if (half) items.half_features = items.features.to(torch::kBFloat16);
      EXPECT_NEAR(rounded(z, items, labels).item<double>(), loss, 2e-3 * loss);
      const auto actual = torch::autograd::grad({rounded(z, items, labels)}, leaves);
      for (size_t i = 0; i < leaves.size(); ++i) {
        const double error = (actual[i] - expected[i]).norm().item<double>();
        EXPECT_LE(error, 2e-2 * expected[i].norm().item<double>()) << "gradient " << i;
        EXPECT_GT(error, 0) << "nothing was rounded";
      }
    }
  }
}

TEST_F(NestedOpsTest, CrossEntropyLetsNaNThrough) {
  const ItemTensors items = {.features = torch::randn({9, 12}),
                             .projector = torch::randn({12, 12}).requires_grad_(true),
                             .bias = torch::zeros({12}).requires_grad_(true),
                             .residual = Tensor(),
                             .offset = Tensor(),
                             .half_features = Tensor()};
  const Tensor labels = torch::tensor({1, 2, 3, 4}, torch::kInt64);
  NestedCrossEntropy cross_entropy({.sizes = sizes_, .size_weights = {0.3, 0.3, 0.4}});
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Tensor z = torch::ones({4, 12}, torch::kFloat32);
    z[2][7] = bad;
    z.requires_grad_(true);
    EXPECT_FALSE(std::isfinite(cross_entropy(z, items, labels).item<double>())) << bad;
  }
}

}  // namespace
}  // namespace nestrec
