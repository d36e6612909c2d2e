// The gated recurrence and causal attention against the plain formulas, one sequence and one step
// at a time, with their gradients, in double precision.
#include "model/mixer_ops.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/architecture.h"
#include "tests/model/autograd_oracle.h"

namespace nestrec {
namespace {

using torch::Tensor;

class MixerOpsTest : public testing::Test {
 protected:
  MixerOpsTest() : sizes_(*NestedSizes::Create({3, 5, 12})) { torch::manual_seed(5); }

  // Runs of many lengths, the longest neither first nor last, some equally long.
  const std::vector<std::vector<int64_t>> runs_ = {
      {0, 1, 5, 6, 11, 14, 18}, {0, 4}, {0, 1, 2, 3}, {0, 2, 9}};
  NestedSizes sizes_;
};

TEST_F(MixerOpsTest, GatedRecurrenceIsAGruOverEveryRunAlone) {
  for (const std::vector<int64_t>& run_begins : runs_) {
    const int64_t rows = run_begins.back();
    const std::vector<Tensor> leaves = {Leaf({rows, 12}),
                                        Leaf({rows, 12}),
                                        Leaf({rows, 12}),
                                        Leaf({RaggedWeights(sizes_)}),
                                        Leaf({RaggedWeights(sizes_)}),
                                        Leaf({RaggedWeights(sizes_)})};
    const auto plain = [&] {
      std::vector<Tensor> states;
      for (size_t run = 0; run + 1 < run_begins.size(); ++run) {
        Tensor h = torch::zeros({12}, torch::kFloat64);
        for (int64_t p = run_begins[run]; p < run_begins[run + 1]; ++p) {
          const Tensor r = torch::sigmoid(leaves[0][p] + torch::mv(Dense(leaves[3], sizes_), h));
          const Tensor u = torch::sigmoid(leaves[1][p] + torch::mv(Dense(leaves[4], sizes_), h));
          const Tensor c = torch::tanh(leaves[2][p] + r * torch::mv(Dense(leaves[5], sizes_), h));
          h = (1 - u) * c + u * h;
          states.push_back(h);
        }
      }
      return torch::stack(states);
    };
    for (const bool portable : {false, true}) {
      SCOPED_TRACE(absl::StrCat(rows, " rows, portable ", portable));
      CompareWithAutograd(
          leaves,
          [&] {
            return GatedRecurrence(
                leaves[0], leaves[1], leaves[2],
                {.reset = leaves[3], .update = leaves[4], .candidate = leaves[5]}, sizes_,
                run_begins, {Precision::kFloat32, portable});
          },
          plain);
    }
  }
}

TEST_F(MixerOpsTest, CausalAttentionIsASoftmaxOverTheRunSoFarOfEveryHead) {
  for (const int head_width : {1, 2, 3, 7, 64}) {
    for (const std::vector<int64_t>& run_begins : runs_) {
      SCOPED_TRACE(absl::StrCat("heads of ", head_width, ", ", run_begins.back(), " rows"));
      const int64_t rows = run_begins.back();
      const std::vector<Tensor> leaves = {Leaf({rows, 12}), Leaf({rows, 12}), Leaf({rows, 12})};
      const auto plain = [&] {
        std::vector<Tensor> outputs;
        for (size_t run = 0; run + 1 < run_begins.size(); ++run) {
          for (int64_t p = run_begins[run]; p < run_begins[run + 1]; ++p) {
            const int64_t seen = p - run_begins[run] + 1;
            std::vector<Tensor> heads;
            for (int level = 0; level < sizes_.levels(); ++level) {
              const int64_t width = HeadWidth(sizes_.width(level), head_width);
              for (int64_t c = sizes_.begin(level); c < sizes_.end(level); c += width) {
                const Tensor q = leaves[0][p].narrow(0, c, width);
                const Tensor k = leaves[1].narrow(0, run_begins[run], seen).narrow(1, c, width);
                const Tensor v = leaves[2].narrow(0, run_begins[run], seen).narrow(1, c, width);
                const Tensor e = torch::exp(torch::mv(k, q) / std::sqrt(1.0 * width));
                heads.push_back(torch::mv(v.t(), e / e.sum()));
              }
            }
            outputs.push_back(torch::cat(heads));
          }
        }
        return torch::stack(outputs);
      };
      CompareWithAutograd(
          leaves,
          [&] {
            return CausalAttention(leaves[0], leaves[1], leaves[2], sizes_, head_width, run_begins);
          },
          plain);
    }
  }
}

TEST_F(MixerOpsTest, AttentionDropsOutSharesAndKeepsTheirMean) {
  const Tensor q = torch::randn({6, 12});
  const Tensor v = torch::rand({6, 12}) + 0.5;
  const Tensor kept = CausalAttention(q, q, v, sizes_, 4, {0, 6});
  Tensor sum = torch::zeros_like(kept);
  constexpr int kDraws = 4000;
  for (int i = 0; i < kDraws; ++i) sum += CausalAttention(q, q, v, sizes_, 4, {0, 6}, 0.5);
  EXPECT_LE((sum / kDraws - kept).abs().max().item<double>(), 0.1);
  EXPECT_GT((CausalAttention(q, q, v, sizes_, 4, {0, 6}, 0.5) - kept).abs().max().item<double>(),
            0.1);
}

TEST(HeadWidthTest, IsTheNarrowestDivisorOfTheLevelThatIsWideEnough) {
  EXPECT_EQ(HeadWidth(8, 64), 8);  // a narrow level is one head
  EXPECT_EQ(HeadWidth(64, 64), 64);
  EXPECT_EQ(HeadWidth(512, 64), 64);
  EXPECT_EQ(HeadWidth(96, 64), 96);
  EXPECT_EQ(HeadWidth(1000, 64), 100);
  EXPECT_EQ(HeadWidth(997, 64), 997);  // a prime
}

}  // namespace
}  // namespace nestrec
