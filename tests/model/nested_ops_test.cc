// Every hand-written backward pass against autograd of the plain formula, in double precision.
#include "model/nested_ops.h"

#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"

namespace nestrec {
namespace {

using torch::Tensor;

Tensor Leaf(std::vector<int64_t> shape) {
  return torch::randn(shape, torch::kFloat64).requires_grad_(true);
}

void ExpectSame(const Tensor& actual, const Tensor& expected, const std::string& what,
                double tolerance = 1e-10) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  EXPECT_LE((actual - expected).abs().max().item<double>(),
            tolerance * (1 + expected.abs().max().item<double>()))
      << what;
}

// Runs `actual` and `expected` on the same leaves and compares value and all gradients of a random
// projection of it.
template <typename Actual, typename Expected>
void CompareWithAutograd(const std::vector<Tensor>& leaves, Actual&& actual, Expected&& expected) {
  const Tensor a = actual();
  const Tensor b = expected();
  ExpectSame(a, b, "value");
  const Tensor direction = torch::randn_like(b);
  const auto grads_a = torch::autograd::grad({(a * direction).sum()}, leaves);
  const auto grads_b = torch::autograd::grad({(b * direction).sum()}, leaves);
  for (size_t i = 0; i < leaves.size(); ++i)
    ExpectSame(grads_a[i], grads_b[i], absl::StrCat("gradient ", i));
}

class NestedOpsTest : public testing::Test {
 protected:
  NestedOpsTest() : sizes_(*NestedSizes::Create({3, 5, 12})) { torch::manual_seed(5); }

  // The dense [D, D] matrix of a ragged weight.
  Tensor Dense(const Tensor& ragged) const {
    std::vector<Tensor> rows;
    for (int level = 0; level < sizes_.levels(); ++level) {
      const Tensor w = RaggedLevel(ragged, sizes_, level);
      rows.push_back(torch::constant_pad_nd(w, {0, sizes_.max_dim() - w.size(1)}));
    }
    return torch::cat(rows, 0);
  }
  NestedSizes sizes_;
};

TEST_F(NestedOpsTest, NestedLinearIsABlockTriangularProduct) {
  const Tensor x = Leaf({7, 12});
  const Tensor weight = Leaf({RaggedWeights(sizes_)});
  const Tensor bias = Leaf({12});
  CompareWithAutograd(
      {x, weight, bias}, [&] { return NestedLinear(x, weight, bias, sizes_); },
      [&] { return torch::addmm(bias, x, Dense(weight).t()); });
  CompareWithAutograd(
      {x, weight}, [&] { return NestedLinear(x, weight, Tensor(), sizes_); },
      [&] { return torch::mm(x, Dense(weight).t()); });
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

TEST_F(NestedOpsTest, NestedCrossEntropyIsTheMeanOverSizesOfTheFullSoftmax) {
  const Tensor z = Leaf({40, 12});
  const Tensor items = Leaf({9, 12});
  const Tensor labels = torch::randint(0, 9, {40}, torch::kInt64);
  const std::vector<double> weights = {0.2, 0.5, 0.3};
  const auto plain = [&] {
    Tensor loss = torch::zeros({}, torch::kFloat64);
    for (int level = 0; level < sizes_.levels(); ++level) {
      const int64_t end = sizes_.end(level);
      const Tensor logits = torch::mm(z.narrow(1, 0, end), items.narrow(1, 0, end).t());
      loss = loss + weights[static_cast<size_t>(level)] *
                        torch::nn::functional::cross_entropy(logits, labels);
    }
    return loss;
  };
  CompareWithAutograd(
      {z, items}, [&] { return NestedCrossEntropy(z, items, labels, sizes_, weights); }, plain);
  // The least memory makes blocks of 16 positions: 40 = 16 + 16 + 8.
  CompareWithAutograd(
      {z, items}, [&] { return NestedCrossEntropy(z, items, labels, sizes_, weights, 1); }, plain);
}

TEST_F(NestedOpsTest, NestedCrossEntropyStaysFiniteForHugeScores) {
  const Tensor z = (torch::ones({4, 12}, torch::kFloat32) * 1e4).requires_grad_(true);
  const Tensor items = torch::randn({9, 12}).requires_grad_(true);
  const Tensor labels = torch::tensor({1, 2, 3, 4}, torch::kInt64);
  const Tensor loss = NestedCrossEntropy(z, items, labels, sizes_, {0.3, 0.3, 0.4});
  loss.backward();
  EXPECT_TRUE(std::isfinite(loss.item<double>()));
  EXPECT_TRUE(torch::isfinite(z.grad()).all().item<bool>());
}

}  // namespace
}  // namespace nestrec
