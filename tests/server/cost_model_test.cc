#include "server/cost_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <thread>
#include <vector>

#include "base/random.h"

namespace nestrec {
namespace {

absl::Duration Us(double microseconds) { return absl::Microseconds(microseconds); }

double Lognormal(Random& random, double median, double spread) {
  return median * std::exp(spread * random.Normal());
}

double SortedQuantile(std::vector<double> values, double quantile) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(quantile * static_cast<double>(values.size() - 1))];
}

TEST(QuantileSketchTest, IsWithinItsErrorOfTheSortedValues) {
  for (const double spread : {0.0, 0.1, 0.5, 1.5}) {
    for (const double median : {150.0, 900.0, 2e5}) {
      Random random(7);
      QuantileSketch sketch;
      std::vector<double> values;
      for (int i = 0; i < 200; ++i) {
        values.push_back(Lognormal(random, median, spread));
        sketch.Add(Us(values.back()));
      }
      // New values count more than old ones, so the ranks of the two may differ a little.
      for (const double quantile : {0.1, 0.5, 0.9, 0.95}) {
        const double found = absl::ToDoubleMicroseconds(sketch.Quantile(quantile));
        EXPECT_GE(found * (1 + QuantileSketch::kRelativeError),
                  SortedQuantile(values, quantile - 0.03))
            << "median " << median << " spread " << spread << " quantile " << quantile;
        EXPECT_LE(found / (1 + QuantileSketch::kRelativeError),
                  SortedQuantile(values, quantile + 0.03))
            << "median " << median << " spread " << spread << " quantile " << quantile;
      }
    }
  }
}

TEST(QuantileSketchTest, OneValueIsEveryQuantile) {
  QuantileSketch sketch;
  sketch.Add(absl::Milliseconds(3));
  for (const double quantile : {0.0, 0.5, 1.0}) {
    EXPECT_NEAR(absl::ToDoubleMilliseconds(sketch.Quantile(quantile)), 3, 3 * 0.095);
  }
  EXPECT_DOUBLE_EQ(sketch.weight(), 1);
}

TEST(QuantileSketchTest, ValuesBeyondTheScaleCountAsItsEnds) {
  QuantileSketch sketch;
  sketch.Add(-absl::Seconds(1));
  sketch.Add(absl::ZeroDuration());
  EXPECT_LE(sketch.Quantile(1), 1.1 * QuantileSketch::kSmallest);
  for (int i = 0; i < 10; ++i) sketch.Add(absl::InfiniteDuration());
  EXPECT_GE(sketch.Quantile(0.5), QuantileSketch::kLargest / 1.1);
}

TEST(QuantileSketchTest, FollowsADriftWithinAFewHalfLives) {
  QuantileSketch sketch;
  for (int i = 0; i < 100'000; ++i) sketch.Add(Us(100));
  EXPECT_NEAR(sketch.weight(), 370, 1);
  int needed = 0;
  while (sketch.Quantile(0.5) < Us(900)) {
    sketch.Add(Us(1000));
    ++needed;
  }
  EXPECT_LE(needed, QuantileSketch::kHalfLife + 1);
  for (int i = 0; i < 5 * QuantileSketch::kHalfLife; ++i) sketch.Add(Us(1000));
  EXPECT_GT(sketch.Quantile(0.05), Us(900));
}

class CostModelTest : public testing::Test {
 protected:
  void Record(Stage stage, int levels, int64_t rows, double microseconds, int times = 50) {
    for (int i = 0; i < times; ++i) costs_.Record(stage, levels, rows, Us(microseconds));
  }
  double Predict(Stage stage, int levels, int64_t rows, double quantile = 0.5) const {
    return absl::ToDoubleMicroseconds(
        costs_.Predict(stage, levels, rows, quantile).value_or(absl::ZeroDuration()));
  }

  NestedSizes sizes_ = *NestedSizes::Parse("8,16,32,64");
  Instant now_ = Instant(std::chrono::hours(1));
  CostModel costs_{sizes_, [this] { return now_; }};
};

constexpr double kError = QuantileSketch::kRelativeError;

TEST_F(CostModelTest, KnowsNothingBeforeTheFirstRecordOfAStage) {
  EXPECT_FALSE(costs_.Predict(Stage::kEncode, 1, 1, 0.5).has_value());
  Record(Stage::kSearch, 1, 1, 10);
  EXPECT_FALSE(costs_.Predict(Stage::kEncode, 1, 1, 0.5).has_value());
  EXPECT_TRUE(costs_.PredictLevels(Stage::kEncode, 1, 0.5).empty());
  EXPECT_TRUE(costs_.Predict(Stage::kSearch, 1, 1, 0.5).has_value());
}

TEST_F(CostModelTest, LearnsTheQuantilesOfEveryWidth) {
  Random random(3);
  for (int i = 0; i < 1000; ++i) {
    for (int levels = 1; levels <= 4; ++levels) {
      costs_.Record(Stage::kEncode, levels, 50,
                    Us(100.0 * (1 << levels) * (i % 10 == 0 ? 3.0 : 1.0 + 0.1 * random.Uniform())));
    }
  }
  for (int levels = 1; levels <= 4; ++levels) {
    const double median = 105.0 * (1 << levels);
    EXPECT_NEAR(Predict(Stage::kEncode, levels, 50, 0.5), median, 0.15 * median);
    EXPECT_NEAR(Predict(Stage::kEncode, levels, 50, 0.99), 300.0 * (1 << levels),
                0.15 * 300.0 * (1 << levels));
  }
}

TEST_F(CostModelTest, TellsBatchSizesApartByPowersOfTwoAndScalesToThoseItNeverSaw) {
  Record(Stage::kEncode, 2, 4, 100);
  Record(Stage::kEncode, 2, 64, 1000);
  EXPECT_NEAR(Predict(Stage::kEncode, 2, 7), 100, 100 * kError);
  EXPECT_NEAR(Predict(Stage::kEncode, 2, 127), 1000, 1000 * kError);
  EXPECT_NEAR(Predict(Stage::kEncode, 2, 128), 2000, 2000 * kError);
  EXPECT_NEAR(Predict(Stage::kEncode, 2, 32), 500, 500 * kError);
  // Never less than an eighth, however small.
  EXPECT_NEAR(Predict(Stage::kEncode, 2, 1), 25, 25 * kError);
  EXPECT_GT(Predict(Stage::kEncode, 2, int64_t{1} << 60), 10'000);
}

TEST_F(CostModelTest, AWidthThatWasNeverSeenLiesOnTheLineBetweenItsNeighbours) {
  // Search takes 20 us and 3 us per column.
  Record(Stage::kSearch, 1, 1, 20 + 3 * 8);
  Record(Stage::kSearch, 4, 1, 20 + 3 * 64);
  EXPECT_NEAR(Predict(Stage::kSearch, 2, 1), 20 + 3 * 16, 0.12 * 68);
  EXPECT_NEAR(Predict(Stage::kSearch, 3, 1), 20 + 3 * 32, 0.12 * 116);
}

TEST_F(CostModelTest, BeyondTheWidthsSeenTimesFollowTheWork) {
  Record(Stage::kEncode, 2, 50, 100);
  // Levels of 8, 8, 16 and 32 columns: 8 * 8 + 8 * 16 = 192, + 16 * 32 = 704, + 32 * 64 = 2752.
  EXPECT_NEAR(Predict(Stage::kEncode, 3, 50), 100.0 * 704 / 192, 0.1 * 367);
  EXPECT_NEAR(Predict(Stage::kEncode, 4, 50), 100.0 * 2752 / 192, 0.1 * 1433);
  EXPECT_NEAR(Predict(Stage::kEncode, 1, 50), 100.0 * 64 / 192, 0.1 * 33);
}

TEST_F(CostModelTest, WiderNeverCountsAsCheaper) {
  Random random(11);
  for (int round = 0; round < 200; ++round) {
    CostModel costs(sizes_, [this] { return now_; });
    for (int i = 0; i < 30; ++i) {
      costs.Record(Stage::kEncode, static_cast<int>(1 + random.Index(4)),
                   static_cast<int64_t>(1 + random.Index(100)), Us(1 + 1000 * random.Uniform()));
    }
    for (const int64_t rows : {1, 10, 100}) {
      const auto levels = costs.PredictLevels(Stage::kEncode, rows, 0.9);
      ASSERT_EQ(levels.size(), 4u);
      EXPECT_TRUE(std::is_sorted(levels.begin(), levels.end()));
    }
  }
}

TEST_F(CostModelTest, OwnRecordsSoonOutweighWhatTheNeighboursSay) {
  Record(Stage::kSearch, 1, 1, 100, 400);
  Record(Stage::kSearch, 3, 1, 100, 400);
  EXPECT_NEAR(Predict(Stage::kSearch, 2, 1), 100, 100 * kError);
  Record(Stage::kSearch, 3, 1, 1000, 4000);
  Record(Stage::kSearch, 2, 1, 900, 1);
  EXPECT_LT(Predict(Stage::kSearch, 2, 1), 600);
  Record(Stage::kSearch, 2, 1, 900, 400);
  EXPECT_NEAR(Predict(Stage::kSearch, 2, 1), 900, 0.15 * 900);
}

TEST_F(CostModelTest, AWidthThatWasSlowAMinuteAgoIsJudgedByThoseThatAreFastNow) {
  for (int levels = 1; levels <= 4; ++levels) {
    Record(Stage::kSearch, levels, 1, 100'000, 400);
  }
  // Only the narrowest fitted into anybody's budget.
  for (int second = 0; second < 60; ++second) {
    now_ += std::chrono::seconds(1);
    Record(Stage::kSearch, 1, 1, 100, 100);
  }
  EXPECT_LT(Predict(Stage::kSearch, 4, 1), 50'000);
  now_ += std::chrono::seconds(60);
  Record(Stage::kSearch, 1, 1, 100, 100);
  EXPECT_LT(Predict(Stage::kSearch, 4, 1), 5'000);
  EXPECT_GE(Predict(Stage::kSearch, 4, 1), 100 * (1 - kError));
}

TEST_F(CostModelTest, RestingChangesNothing) {
  Record(Stage::kSearch, 1, 1, 100, 400);
  Record(Stage::kSearch, 4, 1, 3000, 400);
  const double before = Predict(Stage::kSearch, 4, 1);
  now_ += std::chrono::hours(24 * 365);
  EXPECT_NEAR(Predict(Stage::kSearch, 4, 1), before, 1e-6 * before);
}

TEST_F(CostModelTest, WarmUpRunsAreAStartThatTrafficReplaces) {
  for (int levels = 1; levels <= 4; ++levels) Record(Stage::kEncode, levels, 50, 10'000, 5);
  EXPECT_NEAR(Predict(Stage::kEncode, 4, 50, 0.95), 10'000, 10'000 * kError);
  for (int i = 0; i < 300; ++i) {
    for (int levels = 1; levels <= 4; ++levels) Record(Stage::kEncode, levels, 50, 100, 1);
  }
  EXPECT_NEAR(Predict(Stage::kEncode, 4, 50, 0.95), 100, 0.2 * 100);
}

TEST(CostModelThreadsTest, RecordsAndPredictsFromManyThreads) {
  const NestedSizes sizes = *NestedSizes::Parse("8,16,32,64");
  CostModel costs(sizes, SteadyClock());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&costs, t] {
      for (int i = 0; i < 500; ++i) {
        costs.Record(Stage::kEncode, 1 + t, 1 + i % 100, Us(100.0 * (t + 1)));
        const auto levels = costs.PredictLevels(Stage::kEncode, 1 + i % 100, 0.9);
        EXPECT_TRUE(std::is_sorted(levels.begin(), levels.end()));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int levels = 1; levels <= 4; ++levels) {
    EXPECT_NEAR(absl::ToDoubleMicroseconds(*costs.Predict(Stage::kEncode, levels, 64, 0.5)),
                100 * levels, 0.2 * 100 * levels);
  }
}

}  // namespace
}  // namespace nestrec
