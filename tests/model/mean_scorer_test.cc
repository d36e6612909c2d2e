#include "model/mean_scorer.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Scores item i of every history with base + i, at dims {4, 8}, doubled at the second.
class RampScorer : public Scorer {
 public:
  RampScorer(float base, int items, std::vector<int> dims)
      : base_(base), items_(items), dims_(std::move(dims)) {}
  std::string name() const override { return "ramp"; }
  std::vector<int> dims() const override { return dims_; }
  absl::Status Score(std::span<const History> histories, Visitor visit) const override {
    for (size_t size = 0; size < dims_.size(); ++size) {
      std::vector<float> scores;
      for (size_t history = 0; history < histories.size(); ++history) {
        for (int item = 0; item <= items_; ++item) {
          scores.push_back((base_ + static_cast<float>(item)) * static_cast<float>(size + 1));
        }
      }
      const absl::Status status = visit(static_cast<int>(size), scores);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  float base_;
  int items_;
  std::vector<int> dims_;
};

absl::StatusOr<std::unique_ptr<MeanScorer>> MeanOfTwo(int items_of_second,
                                                      std::vector<int> dims_of_second) {
  std::vector<std::unique_ptr<const Scorer>> scorers;
  scorers.push_back(std::make_unique<RampScorer>(0.0f, 2, std::vector<int>{4, 8}));
  scorers.push_back(
      std::make_unique<RampScorer>(10.0f, items_of_second, std::move(dims_of_second)));
  return MeanScorer::Create(std::move(scorers));
}

TEST(MeanScorerTest, AveragesEverySizeOnItsOwn) {
  const auto mean = MeanOfTwo(2, {4, 8});
  ASSERT_TRUE(mean.ok()) << mean.status();
  EXPECT_THAT((*mean)->dims(), ElementsAre(4, 8));
  const std::vector<History> histories(1);
  std::vector<std::vector<float>> seen;
  ASSERT_TRUE((*mean)
                  ->Score(histories,
                          [&](int size, std::span<const float> scores) {
                            EXPECT_EQ(static_cast<size_t>(size), seen.size());
                            seen.emplace_back(scores.begin(), scores.end());
                            return absl::OkStatus();
                          })
                  .ok());
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_THAT(seen[0], ElementsAre(5, 6, 7));
  EXPECT_THAT(seen[1], ElementsAre(10, 12, 14));
}

TEST(MeanScorerTest, RefusesWhatHasNoMean) {
  EXPECT_EQ(MeanScorer::Create({}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(MeanOfTwo(2, {4, 16}).status().message()), HasSubstr("4,8 and 4,16"));
  const auto mean = MeanOfTwo(3, {4, 8});
  ASSERT_TRUE(mean.ok());
  const std::vector<History> histories(1);
  EXPECT_EQ((*mean)
                ->Score(histories, [](int, std::span<const float>) { return absl::OkStatus(); })
                .code(),
            absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace nestrec
