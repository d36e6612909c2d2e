// Training on a device whose memory the processor cannot touch: fake_cuda.h.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/checkpoint.h"
#include "model/device.h"
#include "model/distributed.h"
#include "model/encoder.h"
#include "model/evaluator.h"
#include "model/scorer.h"
#include "model/trainer.h"
#include "tests/model/fake_cuda.h"
#include "tests/testing/cycle_dataset.h"
#include "tests/testing/cycle_training.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Variant {
  std::string name;
  std::function<void(Recipe&)> set;
  bool features = true;
};

std::vector<Variant> Variants() {
  return {
      {"lru", [](Recipe&) {}},
      {"two blocks of gru", [](Recipe& recipe) { recipe.mixer = "gru", recipe.blocks = 2; }},
      {"attention",
       [](Recipe& recipe) {
         recipe.mixer = "attention";
         recipe.head_width = 4;
         recipe.feed_forward = "relu";
         recipe.final_norm = true;
       }},
      {"whitened, with residuals, from principal directions",
       [](Recipe& recipe) {
         recipe.feature_scaling = "whiten";
         recipe.item_residual = true;
         recipe.projector_start = Recipe::kPrincipal;
         recipe.windows = Windows::kAll;
         recipe.max_len = 3;
       }},
      {"distilled, at temperatures and weights of each size",
       [](Recipe& recipe) {
         recipe.distillation = 0.3;
         recipe.temperature_power = 0.5;
         recipe.size_weights = {1, 2};
       }},
      {"sampled", [](Recipe& recipe) { recipe.sampled_items = 15; }},
      {"without features", [](Recipe& recipe) { recipe = recipe.WithoutFeatures(); }, false},
  };
}

class TrainerDeviceTest : public testing::Test {
 protected:
  TrainerDeviceTest() : dataset_(MakeCycleDataset()) {}
  ~TrainerDeviceTest() override { LimitFakeCudaMemory(int64_t{1} << 40); }

  TrainerOptions Options(const std::string& name, int epochs) const {
    TrainerOptions options = CycleTrainerOptions(folder_.File(name), epochs);
    options.device = DeviceKind::kCuda;
    return options;
  }

  std::vector<double> LossesOf(const TrainerOptions& options) const {
    std::vector<double> losses;
    TrainingObserver observer;
    observer.on_step = [&](const StepReport& report) { losses.push_back(report.loss); };
    const auto result = Train(*dataset_, options, observer);
    EXPECT_TRUE(result.ok()) << result.status();
    return losses;
  }

  std::shared_ptr<Dataset> dataset_;
  TempFolder folder_;
};

TEST_F(TrainerDeviceTest, ThePointerOfADeviceTensorLeadsNowhereOnTheHost) {
  const torch::Tensor tensor = torch::ones({3}, torch::kCUDA);
  EXPECT_DEATH(static_cast<void>(*static_cast<volatile float*>(tensor.data_ptr())), "");
  EXPECT_EQ(tensor.sum().item<float>(), 3);
  EXPECT_ANY_THROW(tensor + torch::ones({3}));
}

// With libtorch's operations on the processor as the oracle. Dropout off: its masks are drawn by
// another operation.
TEST_F(TrainerDeviceTest, EveryPartOfARecipeTrainsTheSameModel) {
  for (const Variant& variant : Variants()) {
    SCOPED_TRACE(variant.name);
    dataset_ = MakeCycleDataset();
    if (!variant.features) dataset_->modalities.clear();
    TrainerOptions on_device = Options(absl::StrCat(variant.name, " on the device"), 2);
    on_device.recipe.dropout = 0;
    variant.set(on_device.recipe);
    TrainerOptions on_host = on_device;
    on_host.output = folder_.File(variant.name);
    on_host.device = DeviceKind::kCpu;
    on_host.portable = true;

    const int64_t before = FakeCudaOperations();
    const std::vector<double> losses = LossesOf(on_device);
    EXPECT_GT(FakeCudaOperations() - before, 100 * static_cast<int64_t>(losses.size()));
    const std::vector<double> expected = LossesOf(on_host);
    ASSERT_EQ(losses.size(), expected.size());
    for (size_t step = 0; step < losses.size(); ++step) {
      EXPECT_NEAR(losses[step], expected[step], 1e-5 * expected[step]) << "step " << step;
    }
    const auto a = *Checkpoint::Open(on_device.output, {});
    const auto b = *Checkpoint::Open(on_host.output, {});
    for (size_t level = 0; level < 2; ++level) {
      ASSERT_EQ(a->view().items[level].size(), b->view().items[level].size());
      for (size_t i = 0; i < a->view().items[level].size(); ++i) {
        ASSERT_NEAR(a->view().items[level][i], b->view().items[level][i], 1e-3);
      }
    }
  }
}

TEST_F(TrainerDeviceTest, AModelThatADeviceTrainedServes) {
  TrainerOptions options = Options("m", 12);
  options.recipe.dropout_power = 0.5;
  const auto result = Train(*dataset_, options, {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->test.back().metrics.recall[0], 0.8);
  const auto checkpoint = *Checkpoint::Open(options.output, {});
  const auto encoder = *Encoder::Create(checkpoint->view(), checkpoint);
  const auto evaluation = Evaluate(ModelScorer(encoder.get()), *dataset_,
                                   {.split = Split::kTest, .threads = 1, .users_per_chunk = 64});
  ASSERT_TRUE(evaluation.ok()) << evaluation.status();
  EXPECT_EQ(evaluation->sizes.back().metrics.recall, result->test.back().metrics.recall);
}

TEST_F(TrainerDeviceTest, AResumedRunEqualsOneThatWasNeverStopped) {
  for (const double power : {0.0, 0.5}) {
    SCOPED_TRACE(power);
    TrainerOptions whole = Options(absl::StrCat("whole", power), 2);
    whole.recipe.dropout_power = power;
    const auto expected = Train(*dataset_, whole, {});
    ASSERT_TRUE(expected.ok()) << expected.status();

    TrainerOptions parts = Options(absl::StrCat("parts", power), 2);
    parts.recipe.dropout_power = power;
    int steps = 0;
    TrainingObserver observer;
    observer.on_step = [&](const StepReport&) { ++steps; };
    observer.should_stop = [&] { return steps == 3; };
    ASSERT_EQ(Train(*dataset_, parts, observer).status().code(), absl::StatusCode::kCancelled);
    parts.resume = true;
    TrainerOptions elsewhere = parts;
    elsewhere.device = DeviceKind::kCpu;
    const absl::Status refused = Train(*dataset_, elsewhere, {}).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(refused.message(), HasSubstr("device: \"cuda\" in the saved run"));
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

TEST_F(TrainerDeviceTest, ALossThatIsNotANumberStopsWithStepAndCure) {
  dataset_->modalities[0].features.values[40] = 1e30f;
  const absl::Status status = Train(*dataset_, Options("m", 2), {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("step 1:"), HasSubstr("column 4 of text")));
}

TEST_F(TrainerDeviceTest, ADeviceWithTooLittleMemoryIsAnErrorWithTheCure) {
  LimitFakeCudaMemory(100'000);
  const absl::Status status = Train(*dataset_, Options("m", 2), {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("CUDA out of memory"), HasSubstr("--batch-size"),
                                      HasSubstr("--device cpu")));
}

TEST_F(TrainerDeviceTest, EveryProcessOfAMachineNeedsADeviceOfItsOwn) {
  EXPECT_TRUE(CheckDevice(DeviceKind::kCuda, kFakeCudaDevices - 1).ok());
  const absl::Status status = CheckDevice(DeviceKind::kCuda, kFakeCudaDevices);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("LOCAL_RANK is 2"), HasSubstr("has 2 NVIDIA")));
}

}  // namespace
}  // namespace nestrec
