#include "model/item_ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "base/random.h"
#include "tests/index/every_target.h"

namespace nestrec {
namespace {

// Items, users and their targets; `draw` makes the values.
struct Problem {
  Problem(std::vector<int> ends, int64_t item_count, int64_t users, Random& random,
          const std::function<float()>& draw)
      : sizes(*NestedSizes::Create(std::move(ends))), rows(item_count + 1) {
    const auto fill = [&](std::vector<float>& values, int64_t count) {
      for (int64_t i = 0; i < count; ++i) values.push_back(draw());
    };
    for (int level = 0; level < sizes.levels(); ++level) {
      fill(tables.emplace_back(), rows * sizes.width(level));
    }
    fill(z, users * sizes.max_dim());
    for (int64_t u = 0; u < users; ++u) {
      targets.push_back(static_cast<int32_t>(1 + random.Index(item_count)));
    }
  }

  // Makes `item` the same as `other` at every level.
  void Copy(int32_t other, int32_t item) {
    for (int level = 0; level < sizes.levels(); ++level) {
      float* table = tables[static_cast<size_t>(level)].data();
      std::copy_n(table + other * sizes.width(level), sizes.width(level),
                  table + item * sizes.width(level));
    }
  }

  LevelItems Items(int levels) const {
    views.assign(tables.begin(), tables.end());
    return {.sizes = &sizes, .levels = levels, .items = views, .item_rows = rows};
  }

  // [levels, rows]
  std::vector<float> Scores(size_t user, int levels) const {
    std::vector<int32_t> all(static_cast<size_t>(rows));
    std::iota(all.begin(), all.end(), 0);
    std::vector<float> scores(all.size() * static_cast<size_t>(levels));
    ScoreItems(Items(levels), z.data() + user * static_cast<size_t>(sizes.max_dim()), all,
               scores.data());
    return scores;
  }

  // [levels, users]
  std::vector<int64_t> Before(int levels) const {
    const int64_t users = static_cast<int64_t>(targets.size());
    std::vector<float> target_scores(static_cast<size_t>(levels * users));
    for (size_t u = 0; u < targets.size(); ++u) {
      const std::vector<float> scores = Scores(u, levels);
      for (int64_t level = 0; level < levels; ++level) {
        target_scores[static_cast<size_t>(level * users) + u] =
            scores[static_cast<size_t>(level * rows + targets[u])];
      }
    }
    const int64_t dim = sizes.max_dim();
    std::vector<float> memory(static_cast<size_t>(PackedRows::Floats(users, dim)));
    PackedRows packed(users, dim, memory.data());
    packed.Extend(z.data(), dim, users, dim);
    std::vector<int64_t> before(target_scores.size(), -1);
    CountBefore(Items(levels), packed, targets, target_scores.data(), before.data());
    return before;
  }

  NestedSizes sizes;
  int64_t rows;
  std::vector<std::vector<float>> tables;
  std::vector<float> z;
  std::vector<int32_t> targets;
  mutable std::vector<std::span<const float>> views;
};

// The definition: sort all items by (score down, number up) and look where the target stands.
int64_t SortedBefore(std::span<const float> scores, int32_t target) {
  std::vector<int32_t> order(scores.size() - 1);
  std::iota(order.begin(), order.end(), 1);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  return std::find(order.begin(), order.end(), target) - order.begin();
}

void ExpectSortedRanks(const Problem& problem, int levels) {
  const std::vector<int64_t> before = problem.Before(levels);
  const size_t users = problem.targets.size();
  for (size_t u = 0; u < users; ++u) {
    const std::vector<float> scores = problem.Scores(u, levels);
    for (int level = 0; level < levels; ++level) {
      const auto of_level = std::span(scores).subspan(static_cast<size_t>(level * problem.rows),
                                                      static_cast<size_t>(problem.rows));
      const int64_t expected = SortedBefore(of_level, problem.targets[u]);
      EXPECT_EQ(before[static_cast<size_t>(level) * users + u], expected)
          << "user " << u << ", level " << level;
      EXPECT_EQ(RankOf(of_level, problem.targets[u]), 1 + expected);
    }
  }
}

class ItemRanksTest : public EveryTarget {};

// Whole panels of users and blocks of items, parts of them, and what is left over.
const std::vector<int64_t> kUsers = {1, 8, 16, 17, 33, 48, 49, 97};
const std::vector<int64_t> kItemCounts = {1, 7, 8, 9, 16, 61};

TEST_P(ItemRanksTest, AreThoseOfASortWhereTiesAreCommon) {
  Random random(1);
  // Sums of small whole numbers are exact, and many are equal.
  const auto draw = [&] { return static_cast<float>(random.Index(3)) - 1.0f; };
  for (const int64_t users : kUsers) {
    for (const int64_t items : kItemCounts) {
      const Problem problem({2, 5, 8}, items, users, random, draw);
      ExpectSortedRanks(problem, 3);
      ExpectSortedRanks(problem, 2);
    }
  }
}

TEST_P(ItemRanksTest, EqualItemsTieInEveryBit) {
  Random random(2);
  const auto draw = [&] { return static_cast<float>(random.Normal()); };
  Problem problem({8, 16, 700}, 45, 60, random, draw);  // a level of more columns than one sum has
  for (int32_t item = 1; item + 20 < problem.rows; ++item) problem.Copy(item, item + 20);
  ExpectSortedRanks(problem, 3);
  // Of the twins, the lower number is before the other and never the reverse.
  std::fill(problem.targets.begin(), problem.targets.end(), 5);
  const std::vector<int64_t> low = problem.Before(3);
  std::fill(problem.targets.begin(), problem.targets.end(), 25);
  const std::vector<int64_t> high = problem.Before(3);
  for (size_t at = 0; at < low.size(); ++at) EXPECT_GT(high[at], low[at]);
}

TEST_P(ItemRanksTest, ScoresAreTheProducts) {
  Random random(3);
  const auto draw = [&] { return static_cast<float>(random.Normal()); };
  const Problem problem({4, 300, 900}, 11, 3, random, draw);
  for (size_t u = 0; u < 3; ++u) {
    const std::vector<float> scores = problem.Scores(u, 3);
    for (int64_t item = 1; item < problem.rows; ++item) {
      double expected = 0;
      for (int level = 0; level < 3; ++level) {
        const int64_t width = problem.sizes.width(level);
        for (int64_t c = 0; c < width; ++c) {
          expected += static_cast<double>(problem.tables[static_cast<size_t>(level)]
                                                        [static_cast<size_t>(item * width + c)]) *
                      problem.z[u * 900 + static_cast<size_t>(problem.sizes.begin(level) + c)];
        }
        EXPECT_NEAR(scores[static_cast<size_t>(level * problem.rows + item)], expected, 1e-4);
      }
    }
  }
}

TEST_P(ItemRanksTest, AScoreThatIsNoNumberIsBeforeNothing) {
  Random random(4);
  const auto draw = [&] { return static_cast<float>(random.Normal()); };
  Problem problem({4, 8}, 20, 5, random, draw);
  std::fill(problem.targets.begin(), problem.targets.end(), 7);
  const std::vector<int64_t> all = problem.Before(2);
  problem.Copy(7, 9);
  problem.tables[0][9 * 4] = NAN;
  std::vector<int64_t> without_9 = problem.Before(2);
  for (size_t at = 0; at < all.size(); ++at) {
    EXPECT_LE(without_9[at], all[at]);
    EXPECT_GE(without_9[at], all[at] - 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, ItemRanksTest, testing::ValuesIn(AllTargets()), TargetName);

}  // namespace
}  // namespace nestrec
