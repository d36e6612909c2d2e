#include "model/batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nestrec {
namespace {

using ::testing::ElementsAre;

// Users with the given sequences over ten items; no features.
Dataset MakeDataset(const std::vector<std::vector<int32_t>>& sequences) {
  Dataset dataset;
  dataset.offsets.push_back(0);
  for (size_t user = 0; user < sequences.size(); ++user) {
    dataset.user_ids.push_back(std::to_string(user));
    dataset.interactions.insert(dataset.interactions.end(), sequences[user].begin(),
                                sequences[user].end());
    dataset.offsets.push_back(static_cast<int64_t>(dataset.interactions.size()));
  }
  return dataset;
}

TEST(Batch, FirstItemIsATargetWithPaddingAsInput) {
  const Dataset dataset = MakeDataset({{1, 2, 3, 4, 5}});
  const PackedBatch batch = PackWindows(dataset, MakeTrainingWindows(dataset, 50, Windows::kLast));
  EXPECT_THAT(batch.tokens, ElementsAre(0, 1, 2));  // 4 and 5 are held out
  EXPECT_THAT(batch.labels, ElementsAre(1, 2, 3));
  EXPECT_THAT(batch.run_begins, ElementsAre(0, 1, 3));  // padding passes no state on
}

TEST(Batch, LongUsersKeepTheLastWindowOrAllWindows) {
  const Dataset dataset = MakeDataset({{1, 2, 3, 4, 5, 6, 7, 8, 9}});
  const auto last = MakeTrainingWindows(dataset, 3, Windows::kLast);
  ASSERT_EQ(last.size(), 1u);
  EXPECT_EQ(last[0].begin, 4);
  EXPECT_EQ(last[0].end, 7);
  const PackedBatch batch = PackWindows(dataset, last);
  EXPECT_THAT(batch.tokens, ElementsAre(4, 5, 6));
  EXPECT_THAT(batch.labels, ElementsAre(5, 6, 7));
  EXPECT_THAT(batch.run_begins, ElementsAre(0, 3));
  // All windows cover each target once.
  const PackedBatch all = PackWindows(dataset, MakeTrainingWindows(dataset, 3, Windows::kAll));
  EXPECT_THAT(all.labels, ElementsAre(5, 6, 7, 2, 3, 4, 1));
  EXPECT_THAT(all.tokens, ElementsAre(4, 5, 6, 1, 2, 3, 0));
  EXPECT_THAT(all.run_begins, ElementsAre(0, 3, 6, 7));
}

TEST(Batch, ShortUsersTrainOnEverything) {
  const Dataset dataset = MakeDataset({{1}, {2, 3}, {}, {4, 5, 6}});
  const PackedBatch batch = PackWindows(dataset, MakeTrainingWindows(dataset, 50, Windows::kLast));
  EXPECT_THAT(batch.labels, ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(batch.labelled(), 4);
}

TEST(Batch, AppendKeepsUnlabelledItemsForTheStateAndDropsPlainPadding) {
  PackedBatch batch;
  batch.Append(std::vector<int64_t>{0, 0, 7, 8}, std::vector<int64_t>{0, 7, 0, 9});
  EXPECT_THAT(batch.tokens, ElementsAre(0, 7, 8));
  EXPECT_THAT(batch.labels, ElementsAre(7, 0, 9));
  EXPECT_THAT(batch.run_begins, ElementsAre(0, 1, 3));
  EXPECT_EQ(batch.labelled(), 2);
}

}  // namespace
}  // namespace nestrec
