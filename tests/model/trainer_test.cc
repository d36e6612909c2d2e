#include "model/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/safetensors.h"
#include "model/checkpoint.h"
#include "model/gemm.h"
#include "tests/testing/checkpoint_weights.h"
#include "tests/testing/cycle_dataset.h"
#include "tests/testing/cycle_training.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

class TrainerTest : public testing::Test {
 protected:
  TrainerTest() : dataset_(MakeCycleDataset()) {}

  TrainerOptions Options(const std::string& name, int epochs) const {
    return CycleTrainerOptions(folder_.File(name), epochs);
  }

  std::shared_ptr<const Dataset> dataset_;
  TempFolder folder_;
};

TEST_F(TrainerTest, LearnsWhatPopularityCannot) {
  std::vector<double> losses;
  TrainingObserver observer;
  observer.on_epoch = [&](const EpochReport& report) { losses.push_back(report.loss); };
  const auto result = Train(*dataset_, Options("m", 12), observer);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_LT(losses.back(), 0.5 * losses.front());
  // 30 equally popular items: chance is 5/30 for Recall@5.
  EXPECT_GT(result->test.back().metrics.recall[0], 0.8);
  EXPECT_GT(result->test.front().metrics.recall[0], 0.5);
  const auto checkpoint = Checkpoint::Open(folder_.File("m"), {});
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->info().test.size(), 2u);
  EXPECT_EQ((*checkpoint)->info().validation.size(), 2u);
  EXPECT_EQ((*checkpoint)->info().dataset_fingerprint, dataset_->fingerprint);
}

TEST_F(TrainerTest, TheSameSeedGivesTheSameModel) {
  ASSERT_TRUE(Train(*dataset_, Options("a", 2), {}).ok());
  ASSERT_TRUE(Train(*dataset_, Options("b", 2), {}).ok());
  EXPECT_EQ(CheckpointWeights(folder_.File("a")), CheckpointWeights(folder_.File("b")));
  TrainerOptions other = Options("c", 2);
  other.recipe.seed = 2;
  ASSERT_TRUE(Train(*dataset_, other, {}).ok());
  EXPECT_NE(CheckpointWeights(folder_.File("a")), CheckpointWeights(folder_.File("c")));
}

TEST_F(TrainerTest, AResumedRunEqualsOneThatWasNeverStopped) {
  ASSERT_TRUE(Train(*dataset_, Options("whole", 4), {}).ok());
  int epochs = 0;
  int steps_in_epoch = 0;
  TrainingObserver observer;
  observer.on_epoch = [&](const EpochReport&) {
    ++epochs;
    steps_in_epoch = 0;
  };
  observer.on_step = [&](const StepReport&) { ++steps_in_epoch; };
  observer.should_stop = [&] {
    return epochs == 2 && steps_in_epoch == 3;
  };  // in the middle of the third epoch
  const auto stopped = Train(*dataset_, Options("parts", 4), observer);
  EXPECT_EQ(stopped.status().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(stopped.status().message(), HasSubstr("in epoch 3 after 3 of"));

  TrainerOptions resumed = Options("parts", 4);
  resumed.resume = true;
  std::vector<std::string> notes;
  TrainingObserver noting;
  noting.on_note = [&](const std::string& note) { notes.push_back(note); };
  const auto result = Train(*dataset_, resumed, noting);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(notes, testing::Contains(HasSubstr("resumed in epoch 3 after 3 of")));
  EXPECT_EQ(result->epochs, 4);
  EXPECT_EQ(CheckpointWeights(folder_.File("whole")), CheckpointWeights(folder_.File("parts")));
}

TEST_F(TrainerTest, ARunStoppedWhileItValidatesTrainsNoStepTwice) {
  ASSERT_TRUE(Train(*dataset_, Options("whole", 2), {}).ok());
  int64_t left = -1;
  TrainingObserver observer;
  observer.on_step = [&](const StepReport& report) { left = report.steps - report.step; };
  observer.should_stop = [&] { return left == 0; };
  const auto stopped = Train(*dataset_, Options("parts", 2), observer);
  EXPECT_EQ(stopped.status().code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(FileExists(folder_.File("parts")));

  const auto anew = Train(*dataset_, Options("parts", 2), {});
  EXPECT_EQ(anew.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(anew.status().message(), HasSubstr("an unfinished run"));

  TrainerOptions resumed = Options("parts", 2);
  resumed.resume = true;
  int64_t first_step = 0;
  TrainingObserver counting;
  counting.on_step = [&](const StepReport& report) {
    if (first_step == 0) first_step = report.step + 1000 * report.epoch;
  };
  ASSERT_TRUE(Train(*dataset_, resumed, counting).ok());
  EXPECT_EQ(first_step, 2001);
  EXPECT_EQ(CheckpointWeights(folder_.File("whole")), CheckpointWeights(folder_.File("parts")));
}

// Also the epoch's last batch, which is smaller, and batches of other sizes.
TEST_F(TrainerTest, AFirstEpochStoppedAfterAnyStepLeavesAStateThatGoesOn) {
  for (const int batch_size : {16, 64, 150}) {
    const int steps_of_epoch = (static_cast<int>(dataset_->users()) + batch_size - 1) / batch_size;
    const std::string whole = absl::StrCat("whole", batch_size);
    TrainerOptions options = Options(whole, 1);
    options.recipe.batch_size = batch_size;
    options.recipe.item_residual = true;
    ASSERT_TRUE(Train(*dataset_, options, {}).ok());
    for (int stop_after = 1; stop_after <= steps_of_epoch; ++stop_after) {
      const std::string name = absl::StrCat("parts", batch_size, "-", stop_after);
      TrainerOptions parts = options;
      parts.output = folder_.File(name);
      int steps = 0;
      TrainingObserver observer;
      observer.on_step = [&](const StepReport&) { ++steps; };
      observer.should_stop = [&] { return steps == stop_after; };
      ASSERT_EQ(Train(*dataset_, parts, observer).status().code(), absl::StatusCode::kCancelled);
      ASSERT_TRUE(FileExists(parts.output + ".state")) << name;
      parts.resume = true;
      ASSERT_TRUE(Train(*dataset_, parts, {}).ok()) << name;
      EXPECT_EQ(CheckpointWeights(folder_.File(whole)), CheckpointWeights(parts.output)) << name;
    }
  }
}

TEST_F(TrainerTest, ResumeRefusesAnotherRecipeAndNamesTheDifference) {
  ASSERT_TRUE(Train(*dataset_, Options("m", 1), {}).ok());
  TrainerOptions other = Options("m", 1);
  other.resume = true;
  other.recipe.batch_size = 8;
  other.sizes = *NestedSizes::Parse("8,16");
  const auto result = Train(*dataset_, other, {});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(result.status().message(), HasSubstr("batch_size: 16 in the saved run, 8 now"));
}

TEST_F(TrainerTest, ResumeRefusesOtherSizesOtherDataAndOtherFeatures) {
  ASSERT_TRUE(Train(*dataset_, Options("m", 1), {}).ok());
  TrainerOptions options = Options("m", 2);
  options.resume = true;
  const auto refusal = [](const absl::StatusOr<TrainingResult>& result) {
    EXPECT_EQ(result.status().code(), absl::StatusCode::kFailedPrecondition) << result.status();
    return std::string(result.status().message());
  };
  TrainerOptions sizes = options;
  sizes.recipe.epochs = 1;
  sizes.sizes = *NestedSizes::Parse("8,12");
  EXPECT_THAT(refusal(Train(*dataset_, sizes, {})), HasSubstr("sizes: "));
  TrainerOptions same = options;
  same.recipe.epochs = 1;
  auto data = MakeCycleDataset();
  data->fingerprint = "another";
  EXPECT_THAT(refusal(Train(*data, same, {})), HasSubstr("data: "));
  auto features = MakeCycleDataset();
  features->modalities[0].features.row(7)[3] += 0.5f;
  EXPECT_THAT(refusal(Train(*features, same, {})), HasSubstr("features text: "));
  EXPECT_TRUE(Train(*dataset_, same, {}).ok());
}

// States of nestrec 0.1.0 say how wide the features were, not which.
TEST_F(TrainerTest, AStateThatKnowsNothingOfTheFeaturesGoesOnAndSaysSo) {
  ASSERT_TRUE(Train(*dataset_, Options("m", 1), {}).ok());
  const auto file = SafetensorsFile::Open(folder_.File("m.state"), /*require_checksums=*/true);
  ASSERT_TRUE(file.ok()) << file.status();
  SafetensorsWriter writer;
  for (const TensorInfo& tensor : (*file)->tensors()) {
    if (tensor.dtype == DType::kU8) continue;
    writer.Add(tensor.name, tensor.shape, *(*file)->Floats(tensor.name, tensor.shape));
  }
  for (const auto& [key, value] : (*file)->metadata()) {
    if (key != "identity") writer.SetMetadata(key, value);
  }
  auto identity = nlohmann::ordered_json::parse((*file)->metadata().at("identity"));
  ASSERT_EQ(identity.erase("features text"), 1u);
  writer.SetMetadata("identity", identity.dump());
  ASSERT_TRUE(writer.Write(folder_.File("old.state")).ok());
  TrainerOptions options = Options("old", 1);
  options.resume = true;
  std::vector<std::string> notes;
  TrainingObserver observer;
  observer.on_note = [&](const std::string& note) { notes.push_back(note); };
  std::filesystem::copy_file(folder_.File("m"), folder_.File("old"));
  const auto result = Train(*dataset_, options, observer);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(notes, testing::Contains(HasSubstr("does not say which features it was trained on")));
}

TEST_F(TrainerTest, ResumeWithoutAStateDoesNotReplaceTheCheckpoint) {
  ASSERT_TRUE(WriteFileAtomically(folder_.File("m"), "precious").ok());
  TrainerOptions options = Options("m", 1);
  options.resume = true;
  const auto result = Train(*dataset_, options, {});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(result.status().message(), HasSubstr(".state, which --resume needs"));
  EXPECT_EQ(*ReadFile(folder_.File("m")), "precious");
}

TEST_F(TrainerTest, ResumeWithoutTheCheckpointNamesTheCure) {
  ASSERT_TRUE(Train(*dataset_, Options("m", 1), {}).ok());
  const std::string state = *ReadFile(folder_.File("m.state"));
  const std::string checkpoint = *ReadFile(folder_.File("m"));
  std::filesystem::remove(folder_.File("m"));
  TrainerOptions options = Options("m", 1);
  options.resume = true;
  const auto result = Train(*dataset_, options, {});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(
      result.status().message(),
      testing::AllOf(HasSubstr(absl::StrCat(folder_.File("m"), " is gone")), HasSubstr("epoch 1"),
                     HasSubstr("put it back, or --overwrite to start anew")));
  EXPECT_EQ(*ReadFile(folder_.File("m.state")), state);
  EXPECT_FALSE(FileExists(folder_.File("m")));
  // Put back, the run goes on.
  ASSERT_TRUE(WriteFileAtomically(folder_.File("m"), checkpoint).ok());
  EXPECT_TRUE(Train(*dataset_, options, {}).ok());
}

TEST_F(TrainerTest, ResumeNamesAModalityThatIsGone) {
  auto two = MakeCycleDataset();
  two->modalities.push_back({"image", two->modalities[0].features});
  ASSERT_TRUE(Train(*two, Options("m", 1), {}).ok());
  TrainerOptions options = Options("m", 1);
  options.resume = true;
  EXPECT_THAT(Train(*dataset_, options, {}).status().message(),
              HasSubstr("modality image: 12 in the saved run, nothing now"));
}

TEST_F(TrainerTest, AnExistingCheckpointIsNotOverwrittenByAccident) {
  ASSERT_TRUE(WriteFileAtomically(folder_.File("m"), "precious").ok());
  const auto result = Train(*dataset_, Options("m", 1), {});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(result.status().message(), HasSubstr("--overwrite"));
  EXPECT_EQ(*ReadFile(folder_.File("m")), "precious");
}

// The checkpoint's projector must give the stored item embeddings from the raw features, whatever
// scaling was trained with.
TEST_F(TrainerTest, TheStoredProjectorReadsRawFeatures) {
  for (const char* scaling : {"none", "sqrt_width", "whiten"}) {
    TrainerOptions options = Options(scaling, 1);
    options.recipe.feature_scaling = scaling;
    auto dataset = MakeCycleDataset();
    for (float& value : dataset->modalities[0].features.row(4))
      value = 0;  // item 5 has no features
    for (float& value : dataset->modalities[0].features.values) value = value * 3 + 1;
    ASSERT_TRUE(Train(*dataset, options, {}).ok());
    const auto checkpoint = *Checkpoint::Open(folder_.File(scaling), {});
    const ModelView& view = checkpoint->view();
    for (int64_t item = 1; item <= dataset->items(); ++item) {
      std::vector<float> row(dataset->modalities[0].features.row(item - 1).begin(),
                             dataset->modalities[0].features.row(item - 1).end());
      ScaleFeatureRow(checkpoint->info().modalities[0].scaling, row);
      for (int level = 0; level < view.sizes.levels(); ++level) {
        const LinearLevel& projector = view.projector[static_cast<size_t>(level)];
        const size_t width = static_cast<size_t>(view.sizes.width(level));
        for (size_t c = 0; c < width; ++c) {
          double expected = projector.bias[c];
          for (size_t f = 0; f < row.size(); ++f)
            expected += projector.weight[c * row.size() + f] * row[f];
          ASSERT_NEAR(view.items[static_cast<size_t>(level)][static_cast<size_t>(item) * width + c],
                      expected, 1e-4)
              << scaling << ", item " << item;
        }
      }
    }
  }
}

TEST_F(TrainerTest, ALossThatIsNotANumberStopsWithStepAndCure) {
  TrainerOptions options = Options("m", 3);
  options.recipe.learning_rate = 10;
  options.recipe.clip_norm = 0;
  options.recipe.warmup_steps = 0;
  auto dataset = MakeCycleDataset();
  dataset->modalities[0].features.row(2)[1] = 1e38f;
  const auto result = Train(*dataset, options, {});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kAborted) << result.status();
  EXPECT_THAT(result.status().message(), HasSubstr("step 1"));
  EXPECT_THAT(result.status().message(), HasSubstr("row 2 (item 3), column 1 of text is 1e+38"));
  EXPECT_THAT(result.status().message(), HasSubstr("No epoch was finished, and nothing was"));
  EXPECT_FALSE(FileExists(options.output));
}

TEST_F(TrainerTest, ALossThatDivergesLeavesTheBestCheckpointAndSaysSo) {
  TrainerOptions options = Options("m", 100);
  options.recipe.learning_rate = 10;
  options.recipe.clip_norm = 0;
  options.recipe.warmup_steps = 60;
  options.recipe.blocks = 4;
  options.recipe.r_max = 0.9999;
  options.recipe.patience = 100;
  const auto result = Train(*dataset_, options, {});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kAborted) << result.status();
  EXPECT_THAT(result.status().message(), HasSubstr("lower --lr (now 10), or clip gradients"));
  EXPECT_THAT(result.status().message(), HasSubstr("--overwrite"));
  EXPECT_THAT(std::string(result.status().message()),
              testing::ContainsRegex("epoch [0-9]+, step [0-9]+: .* \\(the gradient of "
                                     "(projector|block\\.[0-3])[a-zA-Z0-9_.]* is the first such"));
  EXPECT_THAT(result.status().message(), HasSubstr("the best one before, is intact"));
  EXPECT_TRUE(Checkpoint::Open(options.output, {}).ok());
}

TEST_F(TrainerTest, SettingsOutsideTheirLimitsAreNamed) {
  const auto error = [&](auto change) {
    TrainerOptions options = Options("m", 1);
    change(options.recipe);
    return std::string(Train(*dataset_, options, {}).status().message());
  };
  EXPECT_THAT(error([](Recipe& r) { r.learning_rate = -1; }),
              HasSubstr("--lr: -1 is outside 1e-09 to 10"));
  EXPECT_THAT(error([](Recipe& r) { r.learning_rate = std::nan(""); }), HasSubstr("--lr: nan"));
  EXPECT_EQ(error([](Recipe& r) { r.batch_size = 9'999'999; }),
            "--batch-size: 9999999 is outside 1 to 1048576");
  EXPECT_EQ(error([](Recipe& r) { r.dropout = 1; }), "--dropout: 1 is outside 0 to 0.99");
  EXPECT_EQ(error([](Recipe& r) { r.clip_norm = -1; }), "--clip: -1 is outside 0 to 1000000000");
  EXPECT_EQ(error([](Recipe& r) { r.r_max = 0; }), "--r-max: 0 is not above --r-min, 0");
  EXPECT_EQ(error([](Recipe& r) { r.blocks = 0; }), "--blocks: 0 is outside 1 to 256");
  EXPECT_THAT(error([](Recipe& r) { r.feature_scaling = "x"; }), HasSubstr("sqrt_width"));
  EXPECT_EQ(error([](Recipe& r) { r.distillation = 1.5; }),
            "--distillation: 1.5 is outside 0 to 1");
  EXPECT_THAT(error([](Recipe& r) { r.temperature = 0; }),
              HasSubstr("--temperature: 0 is outside"));
  EXPECT_THAT(error([](Recipe& r) { r.size_weights = {1, 2, 3, 4, 5, 6, 7, 8, 9}; }),
              HasSubstr("--size-weights: 9 weights for the"));
  EXPECT_THAT(error([](Recipe& r) { r.projector_start = "zero"; }),
              HasSubstr("--projector-start: \"zero\" is neither uniform nor principal"));
  EXPECT_THAT(error([](Recipe& r) { r.precision = "half"; }),
              HasSubstr("\"half\" is neither float32 nor bfloat16"));
}

// Each option beyond the published recipe, on data that a model can learn.
class TrainerOptionTest
    : public TrainerTest,
      public testing::WithParamInterface<std::pair<const char*, void (*)(Recipe&)>> {};

TEST_P(TrainerOptionTest, LearnsAndResumesExactly) {
  TrainerOptions options = Options("whole", 8);
  GetParam().second(options.recipe);
  if (options.recipe.precision == "bfloat16" && !HasBfloat16()) {
    const auto refused = Train(*dataset_, options, {});
    EXPECT_THAT(refused.status().message(), HasSubstr("use --precision float32"));
    return;
  }
  const auto whole = Train(*dataset_, options, {});
  ASSERT_TRUE(whole.ok()) << whole.status();
  // Chance is 5/30 for Recall@5.
  EXPECT_GT(whole->validation.back().metrics.recall[0], 0.4);

  TrainerOptions parts = Options("parts", 8);
  GetParam().second(parts.recipe);
  int steps = 0;
  TrainingObserver observer;
  observer.on_step = [&](const StepReport&) { ++steps; };
  observer.should_stop = [&] { return steps == 7; };
  ASSERT_EQ(Train(*dataset_, parts, observer).status().code(), absl::StatusCode::kCancelled);
  parts.resume = true;
  ASSERT_TRUE(Train(*dataset_, parts, {}).ok());
  EXPECT_EQ(CheckpointWeights(folder_.File("whole")), CheckpointWeights(folder_.File("parts")));
}

INSTANTIATE_TEST_SUITE_P(
    Options, TrainerOptionTest,
    testing::Values(std::pair(
                        "Temperature",
                        +[](Recipe& r) {
                          r.temperature = 2;
                          r.temperature_power = 0.5;
                        }),
                    std::pair(
                        "PrincipalStart",
                        +[](Recipe& r) {
                          r.projector_start = "principal";
                          r.branch_scale = 0.1;
                        }),
                    std::pair(
                        "ProjectorScale", +[](Recipe& r) { r.projector_scale = 0.3; }),
                    std::pair(
                        "SizeWeights",
                        +[](Recipe& r) {
                          r.size_weights = {2, 1};
                        }),
                    std::pair(
                        "Distillation", +[](Recipe& r) { r.distillation = 0.5; }),
                    std::pair(
                        "SampledItems", +[](Recipe& r) { r.sampled_items = 10; }),
                    std::pair(
                        "SampledItemsWithResidual",
                        +[](Recipe& r) {
                          r.sampled_items = 10;
                          r.item_residual = true;
                        }),
                    std::pair(
                        "Bfloat16", +[](Recipe& r) { r.precision = "bfloat16"; })),
    [](const auto& info) { return std::string(info.param.first); });

TEST_F(TrainerTest, TwoItemsAndOneUserAreEnough) {
  auto dataset = MakeCycleDataset(/*users=*/1, /*items=*/2, /*events=*/3);
  const auto result = Train(*dataset, Options("m", 1), {});
  EXPECT_TRUE(result.ok()) << result.status();
}

}  // namespace
}  // namespace nestrec
