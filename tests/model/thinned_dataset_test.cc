#include "model/thinned_dataset.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;

Dataset SixtyUsers() {
  Dataset dataset;
  dataset.offsets = {0};
  for (int32_t user = 0; user < 60; ++user) {
    dataset.user_ids.push_back(std::to_string(user));
    for (int32_t i = 0; i < 1 + user; ++i) dataset.interactions.push_back(1 + i);
    dataset.offsets.push_back(static_cast<int64_t>(dataset.interactions.size()));
  }
  dataset.fingerprint = "abc";
  return dataset;
}

std::vector<int32_t> Sequence(const Dataset& dataset, int64_t user) {
  const auto sequence = dataset.sequence(user);
  return {sequence.begin(), sequence.end()};
}

TEST(ThinnedDatasetTest, KeepsTheLastThreeEventsAndAShareOfTheOthersInTheirOrder) {
  const Dataset dataset = SixtyUsers();
  const auto thinned = ThinnedDataset(dataset, 0.25, 1);
  ASSERT_EQ(thinned->users(), dataset.users());
  int64_t others = 0, kept = 0;
  for (int64_t user = 0; user < dataset.users(); ++user) {
    const std::vector<int32_t> before = Sequence(dataset, user);
    const std::vector<int32_t> after = Sequence(*thinned, user);
    const size_t fixed = std::min<size_t>(3, before.size());
    ASSERT_GE(after.size(), fixed);
    EXPECT_TRUE(std::equal(before.end() - static_cast<int64_t>(fixed), before.end(),
                           after.end() - static_cast<int64_t>(fixed)));
    EXPECT_TRUE(std::is_sorted(after.begin(), after.end()));
    others += static_cast<int64_t>(before.size() - fixed);
    kept += static_cast<int64_t>(after.size() - fixed);
  }
  EXPECT_NEAR(static_cast<double>(kept) / static_cast<double>(others), 0.25, 0.04);
}

TEST(ThinnedDatasetTest, TheEndsAreAllAndNothing) {
  const Dataset dataset = SixtyUsers();
  EXPECT_EQ(ThinnedDataset(dataset, 1, 1)->interactions, dataset.interactions);
  EXPECT_THAT(Sequence(*ThinnedDataset(dataset, 0, 1), 59), ElementsAre(58, 59, 60));
}

TEST(ThinnedDatasetTest, IsTheSameForASeedAndOtherwiseNot) {
  const Dataset dataset = SixtyUsers();
  EXPECT_EQ(ThinnedDataset(dataset, 0.5, 1)->interactions,
            ThinnedDataset(dataset, 0.5, 1)->interactions);
  EXPECT_NE(ThinnedDataset(dataset, 0.5, 1)->interactions,
            ThinnedDataset(dataset, 0.5, 2)->interactions);
  EXPECT_NE(ThinnedDataset(dataset, 0.5, 1)->fingerprint,
            ThinnedDataset(dataset, 0.5, 2)->fingerprint);
  EXPECT_NE(ThinnedDataset(dataset, 0.5, 1)->fingerprint, dataset.fingerprint);
}

}  // namespace
}  // namespace nestrec
