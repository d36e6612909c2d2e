#include "server/batch_estimate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nestrec {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr absl::Duration kMs = absl::Milliseconds(1);

class BatchEstimateTest : public testing::Test {
 protected:
  // Every level of the stage took so long, again and again.
  void Took(Stage stage, int64_t rows, std::initializer_list<absl::Duration> each) {
    int levels = 0;
    for (const absl::Duration took : each) {
      ++levels;
      for (int i = 0; i < 20; ++i) costs_.Record(stage, levels, rows, took);
    }
  }
  // Quantiles are known to a tenth.
  static void ExpectAbout(absl::Duration duration, double ms) {
    EXPECT_NEAR(absl::ToDoubleMilliseconds(duration), ms, ms / 10);
  }

  CostModel costs_{*NestedSizes::Create({8, 16}), [] { return Instant(std::chrono::hours(1)); }};
};

TEST_F(BatchEstimateTest, KnowsNothingWhereNothingWasSeen) {
  const BatchEstimate none = EstimateBatch(costs_, {.rows = 3, .searches = 2});
  EXPECT_THAT(none.encode, IsEmpty());
  EXPECT_THAT(none.after, IsEmpty());
  EXPECT_THAT(none.total, IsEmpty());
  Took(Stage::kSearch, 1, {kMs, 2 * kMs});
  EXPECT_THAT(EstimateBatch(costs_, {.rows = 3, .searches = 2}).total, IsEmpty());
}

TEST_F(BatchEstimateTest, AddsUpWhatTheBatchHasToDo) {
  Took(Stage::kEncode, 4, {2 * kMs, 3 * kMs});
  Took(Stage::kSearch, 1, {10 * kMs, 20 * kMs});
  Took(Stage::kOther, 1, {kMs, kMs});
  const BatchEstimate one = EstimateBatch(costs_, {.rows = 4, .searches = 1});
  ASSERT_THAT(one.total, SizeIs(2));
  ExpectAbout(one.encode[0], 2);
  ExpectAbout(one.after[1], 21);
  ExpectAbout(one.total[0], 13);
  ExpectAbout(one.total[1], 24);
  ExpectAbout(one.usual_total[1], 24);
  // An explanation encodes again; sessions that stand need no encoding at all.
  const int64_t explained[] = {4};
  ExpectAbout(EstimateBatch(costs_, {.rows = 4, .searches = 1, .explained = explained}).total[1],
              27);
  ExpectAbout(EstimateBatch(costs_, {.searches = 1}).total[1], 21);
}

TEST_F(BatchEstimateTest, AVectorCostsNoSearch) {
  Took(Stage::kEncode, 4, {2 * kMs, 3 * kMs});
  // Also where none was ever made.
  const BatchEstimate vector = EstimateBatch(costs_, {.rows = 4});
  ASSERT_THAT(vector.total, SizeIs(2));
  ASSERT_THAT(vector.after, SizeIs(2));
  EXPECT_EQ(vector.after[1], absl::ZeroDuration());
  ExpectAbout(vector.total[1], 3);
  ExpectAbout(vector.usual_total[0], 2);
}

TEST_F(BatchEstimateTest, SearchesCostWhatThatManyTogetherDid) {
  Took(Stage::kEncode, 4, {kMs, kMs});
  Took(Stage::kOther, 1, {kMs, kMs});
  Took(Stage::kSearch, 1, {10 * kMs, 20 * kMs});
  // Nothing was seen of four together: as one after the other.
  ExpectAbout(EstimateBatch(costs_, {.rows = 4, .searches = 4}).after[1], 84);
  Took(Stage::kSearch, 4, {15 * kMs, 30 * kMs});
  ExpectAbout(EstimateBatch(costs_, {.rows = 4, .searches = 4}).after[1], 34);
}

}  // namespace
}  // namespace nestrec
