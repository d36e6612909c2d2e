#include "model/item_sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace nestrec {
namespace {

TEST(ItemSamplerTest, ProbabilitiesSumToTheExpectedNumberAndNoneIsAboveOne) {
  const std::vector<int64_t> counts = {100000, 0, 3, 3, 1, 0, 0, 9, 0, 2};
  for (const int64_t expected : {1, 4, 9, 10}) {
    const ItemSampler sampler(counts, expected);
    const auto p = sampler.probabilities();
    EXPECT_NEAR(std::accumulate(p.begin(), p.end(), 0.0), static_cast<double>(expected), 1e-6);
    for (const double probability : p) EXPECT_LE(probability, 1.0);
    EXPECT_GE(p[0], p[7]);
    EXPECT_GE(p[7], p[1]);
  }
}

TEST(ItemSamplerTest, MoreThanAllItemsMeansAllItems) {
  const ItemSampler sampler(std::vector<int64_t>(7, 1), 1000);
  Random random(1);
  const ItemSample sample = sampler.Draw(std::vector<int64_t>{3}, random);
  EXPECT_EQ(sample.items.size(), 7u);
  for (const float offset : sample.offsets) EXPECT_EQ(offset, 0.0f);
}

TEST(ItemSamplerTest, EveryLabelIsThereOnceWithoutACorrection) {
  const ItemSampler sampler(std::vector<int64_t>(1000, 0), 10);
  Random random(2);
  const std::vector<int64_t> labels = {999, 0, 5, 999, 5};
  const ItemSample sample = sampler.Draw(labels, random);
  ASSERT_EQ(sample.labels.size(), labels.size());
  for (size_t i = 0; i < labels.size(); ++i) {
    const size_t at = static_cast<size_t>(sample.labels[i]);
    EXPECT_EQ(sample.items[at], labels[i]);
    EXPECT_EQ(sample.offsets[at], 0.0f);
  }
  EXPECT_TRUE(std::is_sorted(sample.items.begin(), sample.items.end()));
  EXPECT_EQ(std::adjacent_find(sample.items.begin(), sample.items.end()), sample.items.end());
}

TEST(ItemSamplerTest, TheSampledSumOfExponentialsIsUnbiased) {
  std::vector<int64_t> counts(200);
  std::iota(counts.begin(), counts.end(), 0);
  std::vector<double> logits(counts.size());
  Random random(3);
  for (double& logit : logits) logit = random.Normal();
  double full = 0;
  for (const double logit : logits) full += std::exp(logit);

  const ItemSampler sampler(counts, 40);
  const std::vector<int64_t> labels = {7, 120};
  constexpr int kDraws = 4000;
  double mean = 0;
  for (int draw = 0; draw < kDraws; ++draw) {
    const ItemSample sample = sampler.Draw(labels, random);
    for (size_t i = 0; i < sample.items.size(); ++i) {
      mean += std::exp(logits[static_cast<size_t>(sample.items[i])] + sample.offsets[i]) / kDraws;
    }
  }
  EXPECT_NEAR(mean, full, 0.02 * full);
}

}  // namespace
}  // namespace nestrec
