// Training with every mixer, without features, and as another device computes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/checkpoint.h"
#include "model/encoder.h"
#include "model/evaluator.h"
#include "model/scorer.h"
#include "model/trainer.h"
#include "tests/testing/cycle_dataset.h"
#include "tests/testing/cycle_training.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

class TrainerArchitectureTest : public testing::Test {
 protected:
  TrainerArchitectureTest() : dataset_(MakeCycleDataset()) {}

  TrainerOptions Options(const std::string& name, int epochs) const {
    return CycleTrainerOptions(folder_.File(name), epochs);
  }

  // Recall@5 of the checkpoint's widest size on the test items: chance is 5/30.
  double RecallOf(const std::string& path) const {
    const auto checkpoint = *Checkpoint::Open(path, {});
    const auto encoder = *Encoder::Create(checkpoint->view(), checkpoint);
    const auto evaluation = Evaluate(ModelScorer(encoder.get()), *dataset_,
                                     {.split = Split::kTest, .threads = 1, .users_per_chunk = 64});
    EXPECT_TRUE(evaluation.ok()) << evaluation.status();
    return evaluation->sizes.back().metrics.recall[0];
  }

  std::shared_ptr<Dataset> dataset_;
  TempFolder folder_;
};

TEST_F(TrainerArchitectureTest, EveryMixerLearnsAndItsCheckpointServes) {
  for (const char* mixer : {"lru", "gru", "attention"}) {
    SCOPED_TRACE(mixer);
    TrainerOptions options = Options(mixer, 12);
    options.recipe.mixer = mixer;
    if (options.recipe.mixer == "attention") options.recipe.head_width = 4;
    std::vector<double> losses;
    TrainingObserver observer;
    observer.on_epoch = [&](const EpochReport& report) { losses.push_back(report.loss); };
    const auto result = Train(*dataset_, options, observer);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_LT(losses.back(), 0.5 * losses.front());
    EXPECT_GT(result->test.back().metrics.recall[0], 0.8);
    EXPECT_EQ(RecallOf(options.output), result->test.back().metrics.recall[0]);
    const auto checkpoint = *Checkpoint::Open(options.output, {});
    EXPECT_EQ(MixerName(checkpoint->view().architecture.mixer), mixer);
    EXPECT_EQ(checkpoint->view().architecture, options.recipe.MakeArchitecture());
  }
}

TEST_F(TrainerArchitectureTest, AResumedRunEqualsOneThatWasNeverStoppedWhateverTheMixer) {
  for (const char* mixer : {"gru", "attention"}) {
    SCOPED_TRACE(mixer);
    TrainerOptions whole = Options(absl::StrCat(mixer, "-whole"), 2);
    whole.recipe.mixer = mixer;
    const auto expected = Train(*dataset_, whole, {});
    ASSERT_TRUE(expected.ok()) << expected.status();

    TrainerOptions parts = Options(absl::StrCat(mixer, "-parts"), 2);
    parts.recipe.mixer = mixer;
    int steps = 0;
    TrainingObserver observer;
    observer.on_step = [&](const StepReport&) { ++steps; };
    observer.should_stop = [&] { return steps == 3; };
    ASSERT_EQ(Train(*dataset_, parts, observer).status().code(), absl::StatusCode::kCancelled);
    parts.resume = true;
    const auto resumed = Train(*dataset_, parts, {});
    ASSERT_TRUE(resumed.ok()) << resumed.status();
    const auto a = *Checkpoint::Open(whole.output, {});
    const auto b = *Checkpoint::Open(parts.output, {});
    for (size_t level = 0; level < 2; ++level) {
      EXPECT_TRUE(std::ranges::equal(a->view().items[level], b->view().items[level]));
    }
    EXPECT_EQ(expected->test.back().metrics.ndcg, resumed->test.back().metrics.ndcg);
  }
}

TEST_F(TrainerArchitectureTest, ItemsWithoutFeaturesAreLearnedVectorsAlone) {
  dataset_->modalities.clear();
  TrainerOptions options = Options("ids", 12);
  const auto refused = Train(*dataset_, options, {});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refused.status().message(), HasSubstr("--item-residual"));

  // SASRec's parts, and the settings of a recipe for features, which have nothing to act on.
  options.recipe.mixer = "attention";
  options.recipe.feed_forward = "relu";
  options.recipe.final_norm = true;
  options.recipe.input_scale = 4;
  options.recipe.feature_scaling = "whiten";
  options.recipe.projector_start = Recipe::kPrincipal;
  options.recipe = options.recipe.WithoutFeatures();
  const auto result = Train(*dataset_, options, {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->test.back().metrics.recall[0], 0.8);
  EXPECT_EQ(RecallOf(options.output), result->test.back().metrics.recall[0]);
  const auto checkpoint = *Checkpoint::Open(options.output, {});
  EXPECT_TRUE(checkpoint->info().modalities.empty());
  EXPECT_EQ(checkpoint->file().Find("projector.level0.weight"), nullptr);
  EXPECT_NE(checkpoint->file().Find("final_norm.scale.level1"), nullptr);
}

TEST_F(TrainerArchitectureTest, ASampledSoftmaxTrainsEveryMixerAndItemsWithoutFeatures) {
  for (const char* mixer : {"lru", "gru", "attention"}) {
    for (const bool features : {true, false}) {
      SCOPED_TRACE(absl::StrCat(mixer, features ? "" : " without features"));
      const auto dataset = MakeCycleDataset();
      TrainerOptions options = Options(absl::StrCat(mixer, features), 6);
      options.recipe.mixer = mixer;
      options.recipe.sampled_items = 15;
      if (!features) {
        dataset->modalities.clear();
        options.recipe = options.recipe.WithoutFeatures();
      }
      std::vector<double> losses;
      TrainingObserver observer;
      observer.on_epoch = [&](const EpochReport& report) { losses.push_back(report.loss); };
      const auto result = Train(*dataset, options, observer);
      ASSERT_TRUE(result.ok()) << result.status();
      EXPECT_LT(losses.back(), 0.8 * losses.front());
    }
  }
}

// Dropout off: its masks are drawn for tensors of other shapes.
TEST_F(TrainerArchitectureTest, LibtorchsOperationsTrainTheSameModel) {
  for (const char* mixer : {"lru", "gru", "attention"}) {
    SCOPED_TRACE(mixer);
    std::vector<std::vector<double>> losses;
    for (const bool portable : {false, true}) {
      TrainerOptions options = Options(absl::StrCat(mixer, portable), 3);
      options.recipe.mixer = mixer;
      options.recipe.dropout = 0;
      options.recipe.feature_scaling = "whiten";
      options.portable = portable;
      losses.emplace_back();
      TrainingObserver observer;
      observer.on_step = [&](const StepReport& report) { losses.back().push_back(report.loss); };
      ASSERT_TRUE(Train(*dataset_, options, observer).ok());
    }
    ASSERT_EQ(losses[0].size(), losses[1].size());
    for (size_t step = 0; step < losses[0].size(); ++step) {
      EXPECT_NEAR(losses[1][step], losses[0][step], 1e-3 * losses[0][step]) << "step " << step;
    }
  }
}

TEST_F(TrainerArchitectureTest, ADeviceThatIsNotThereIsRefusedWithTheCure) {
  const absl::Status status = CheckDevice(DeviceKind::kCuda, 0);
  if (status.ok()) GTEST_SKIP() << "this machine has an NVIDIA device";
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("or use --device cpu"));
  TrainerOptions options = Options("m", 1);
  options.device = DeviceKind::kCuda;
  EXPECT_EQ(Train(*dataset_, options, {}).status(), status);
  EXPECT_TRUE(CheckDevice(DeviceKind::kCpu, 99).ok());
}

TEST_F(TrainerArchitectureTest, AnNvidiaDeviceTrainsTheSameModel) {
  if (const absl::Status status = CheckDevice(DeviceKind::kCuda, 0); !status.ok()) {
    GTEST_SKIP() << status;
  }
  for (const char* mixer : {"lru", "gru", "attention"}) {
    SCOPED_TRACE(mixer);
    std::vector<std::vector<double>> losses;
    for (const DeviceKind device : {DeviceKind::kCpu, DeviceKind::kCuda}) {
      TrainerOptions options =
          Options(absl::StrCat(mixer, device == DeviceKind::kCuda ? "-cuda" : "-cpu"), 3);
      options.recipe.mixer = mixer;
      options.recipe.dropout = 0;
      options.device = device;
      losses.emplace_back();
      TrainingObserver observer;
      observer.on_step = [&](const StepReport& report) { losses.back().push_back(report.loss); };
      const auto result = Train(*dataset_, options, observer);
      ASSERT_TRUE(result.ok()) << result.status();
      EXPECT_EQ(RecallOf(options.output), result->test.back().metrics.recall[0]);
    }
    for (size_t step = 0; step < losses[0].size(); ++step) {
      EXPECT_NEAR(losses[1][step], losses[0][step], 1e-2 * losses[0][step]) << "step " << step;
    }
  }
}

}  // namespace
}  // namespace nestrec
