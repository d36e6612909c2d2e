#include "model/training_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/testing/cycle_dataset.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kItems = 9999;  // 10,000 rows with padding
constexpr int kWidth = 20;

MemoryLimit Group(uint64_t left_bytes) {
  return {.name = "the group's limit", .limit_bytes = 2 * left_bytes, .left_bytes = left_bytes};
}

class TrainingMemoryTest : public testing::Test {
 protected:
  TrainingMemoryTest()
      : dataset_(MakeCycleDataset(/*users=*/3, /*items=*/kItems, /*events=*/4, kWidth)) {
    recipe_.item_residual = true;
  }
  std::string Message(uint64_t left_bytes) const {
    const MemoryLimit limit = Group(left_bytes);
    const absl::Status status = CheckTrainingMemory(*dataset_, recipe_, sizes_, {&limit, 1});
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    return std::string(status.message());
  }

  std::shared_ptr<Dataset> dataset_;
  Recipe recipe_;
  const NestedSizes sizes_ = *NestedSizes::Parse("8,64,256");
};

TEST_F(TrainingMemoryTest, CountsWhatGrowsWithTheCatalogue) {
  const TrainingMemory memory = EstimateTrainingMemory(*dataset_, recipe_, 256);
  EXPECT_EQ(memory.feature_bytes, 10'000u * 20 * 4);
  EXPECT_EQ(memory.residual_bytes, 4 * 10'000u * 256 * 4);
  EXPECT_EQ(memory.evaluation_bytes, 2 * 10'000u * 256 * 4);
  EXPECT_EQ(memory.projector_bytes, 4 * 20u * 256 * 4);
  recipe_.item_residual = false;
  recipe_.precision = Recipe::kBfloat16;
  EXPECT_EQ(EstimateTrainingMemory(*dataset_, recipe_, 256).residual_bytes, 0u);
  EXPECT_EQ(EstimateTrainingMemory(*dataset_, recipe_, 256).feature_bytes, 10'000u * 20 * 6);
}

TEST_F(TrainingMemoryTest, TakesARunThatJustFitsAndRefusesOneByteLess) {
  const uint64_t need = EstimateTrainingMemory(*dataset_, recipe_, 256).total();
  const MemoryLimit limits[] = {Group(10 * need), Group(need)};
  EXPECT_TRUE(CheckTrainingMemory(*dataset_, recipe_, sizes_, limits).ok());
  EXPECT_TRUE(CheckTrainingMemory(*dataset_, recipe_, sizes_, {}).ok());
  EXPECT_THAT(Message(need - 1),
              HasSubstr("training 9999 items at --dim 256 needs at least 59 MiB"));
}

TEST_F(TrainingMemoryTest, NamesTheLimitAndWhatWouldFit) {
  const std::string message = Message(30 << 20);
  EXPECT_THAT(message, HasSubstr("of the group's limit, 60 MiB, only 30 MiB is left"));
  EXPECT_THAT(message, HasSubstr("--dim 64 would fit"));
  EXPECT_THAT(message, HasSubstr("--no-item-residual needs 20 MiB, which would fit"));
  const std::string none = Message(1 << 20);
  EXPECT_THAT(none, Not(HasSubstr("would fit")));
  EXPECT_THAT(none, HasSubstr("give it more memory"));
}

}  // namespace
}  // namespace nestrec
