#include "index/cosine_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/index/test_vectors.h"

namespace nestrec {
namespace {

// By the definition, in long double and without the code under test.
double Cosine(std::span<const float> query, const TestVectors& vectors, int levels, int64_t item) {
  TestVectors& mutable_vectors = const_cast<TestVectors&>(vectors);
  long double product = 0;
  long double query_square = 0;
  long double item_square = 0;
  size_t column = 0;
  for (int level = 0; level < levels; ++level) {
    for (const float value : mutable_vectors.row(level, item)) {
      product += static_cast<long double>(query[column]) * value;
      query_square += static_cast<long double>(query[column]) * query[column];
      item_square += static_cast<long double>(value) * value;
      ++column;
    }
  }
  return query_square > 0 && item_square > 0
             ? static_cast<double>(product / std::sqrt(query_square * item_square))
             : 0;
}

CosineIndex MakeIndex(const TestVectors& vectors, int levels) {
  return CosineIndex(vectors.view(), levels, *ItemNorms::Create(vectors.view()));
}

TEST(CosineIndexTest, FindsWhatTheDefinitionFindsAtEveryWidth) {
  Random random(1);
  constexpr int64_t kItems = 1500;  // more than a block
  TestVectors vectors = TestVectors::Gaussian(kItems, {8, 24, 64}, random);
  for (int64_t item = 1; item <= kItems; ++item) {  // lengths that would rule by inner product
    const float scale = static_cast<float>(std::exp(2 * random.Normal()));
    for (int level = 0; level < 3; ++level) {
      for (float& value : vectors.row(level, item)) value *= scale;
    }
  }
  for (int levels = 1; levels <= 3; ++levels) {
    const CosineIndex index = MakeIndex(vectors, levels);
    const auto query = GaussianVector(static_cast<size_t>(index.dim()), random);
    std::vector<int32_t> listed;
    for (int32_t item = 1; item <= kItems; item += 100) listed.push_back(item);
    const ItemFilter few = ItemFilter::Allowing(kItems, listed);
    const ItemFilter many = ItemFilter::Excluding(kItems, listed);
    ASSERT_TRUE(few.few().has_value());
    ASSERT_FALSE(many.few().has_value());
    for (const ItemFilter* filter : {static_cast<const ItemFilter*>(nullptr), &few, &many}) {
      const auto found = index.Search(query, {.k = 12, .filter = filter});
      ASSERT_TRUE(found.ok()) << found.status();
      EXPECT_TRUE(found->exact);
      std::vector<double> expected;
      for (int64_t item = 1; item <= kItems; ++item) {
        if (filter == nullptr || filter->Allows(item)) {
          expected.push_back(Cosine(query, vectors, levels, item));
        }
      }
      std::sort(expected.begin(), expected.end(), std::greater<>());
      ASSERT_EQ(found->items.size(), 12u);
      for (size_t i = 0; i < 12; ++i) {
        EXPECT_NEAR(found->items[i].score, expected[i], 1e-6) << i;
        EXPECT_NEAR(Cosine(query, vectors, levels, found->items[i].item), expected[i], 1e-6) << i;
      }
    }
  }
}

TEST(CosineIndexTest, AVectorIsLikeItselfAndUnlikeItsOpposite) {
  TestVectors vectors = TestVectors::Zeros(3, {2, 4});
  const float one[] = {3e18f, 4e18f, 0, 0};
  for (int level = 0; level < 2; ++level) {
    for (int c = 0; c < 2; ++c) {
      vectors.row(level, 1)[static_cast<size_t>(c)] = one[2 * level + c];
      vectors.row(level, 2)[static_cast<size_t>(c)] = -1e-30f * one[2 * level + c];
    }
  }
  const auto found = MakeIndex(vectors, 2).Search(one, {.k = 5});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(found->items,
              testing::ElementsAre(ScoredItem{1, 1.0f}, ScoredItem{3, 0.0f}, ScoredItem{2, -1.0f}));
}

TEST(CosineIndexTest, AZeroQueryIsLikeNothing) {
  Random random(2);
  const TestVectors vectors = TestVectors::Gaussian(5, {4}, random);
  const std::vector<float> zero(4, 0.0f);
  const auto found = MakeIndex(vectors, 1).Search(zero, {.k = 2});
  ASSERT_TRUE(found.ok());
  EXPECT_THAT(found->items, testing::ElementsAre(ScoredItem{1, 0.0f}, ScoredItem{2, 0.0f}));
}

TEST(CosineIndexTest, AppliesMinScoreAndRefusesWhatNoIndexTakes) {
  Random random(3);
  const TestVectors vectors = TestVectors::Gaussian(50, {8}, random);
  const CosineIndex index = MakeIndex(vectors, 1);
  const auto query = GaussianVector(8, random);
  const auto all = index.Search(query, {.k = 50});
  ASSERT_TRUE(all.ok());
  const auto above = index.Search(query, {.k = 50, .min_score = all->items[6].score});
  ASSERT_TRUE(above.ok());
  EXPECT_EQ(above->items.size(), 7u);
  EXPECT_EQ(index.Search(query, {.k = 0}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(index.Search(std::span(query).first(7), {.k = 1}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace nestrec
