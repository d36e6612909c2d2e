// From raw events to an answered request, through the real program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "model/checkpoint.h"
#include "model/dataset.h"
#include "model/encoder.h"
#include "model/scorer.h"
#include "model/split.h"
#include "server/client.h"
#include "tests/cli/program.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

const std::vector<std::string> kQuickTraining = {"--sizes",      "8,16,32", "--epochs",  "2",
                                                 "--batch-size", "32",      "--lr",      "2e-3",
                                                 "--dropout",    "0.1",     "--threads", "1"};

ProgramResult TrainModel(const std::string& data, const std::string& model,
                         std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {"train", "--data", data, "-o", model};
  arguments.insert(arguments.end(), kQuickTraining.begin(), kQuickTraining.end());
  arguments.insert(arguments.end(), more.begin(), more.end());
  return RunProgram(arguments);
}

std::vector<Json> JsonLines(const std::string& text) {
  std::vector<Json> lines;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipWhitespace())) {
    if (line.front() == '{') lines.push_back(Json::parse(line.begin(), line.end()));
  }
  return lines;
}

class PipelineTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder();
    const ProgramResult prepared = MakeShop(folder_->path());
    ASSERT_EQ(prepared.exit_code, 0) << prepared.output;
    const ProgramResult trained = TrainModel(folder_->File("data"), folder_->File("m.safetensors"),
                                             {"--json", folder_->File("log.jsonl")});
    ASSERT_EQ(trained.exit_code, 0) << trained.output;
    EXPECT_THAT(trained.output, HasSubstr("best epoch"));
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }
  static std::string Model() { return folder_->File("m.safetensors"); }
  static std::string Data() { return folder_->File("data"); }
  static TempFolder* folder_;
};
TempFolder* PipelineTest::folder_ = nullptr;

// Attention on learned item vectors alone, through every command that reads a model.
TEST_F(PipelineTest, AModelWithoutFeaturesAndWithAnotherMixerIsTrainedEvaluatedAndExported) {
  const std::string model = folder_->File("attention.safetensors");
  const ProgramResult trained =
      TrainModel(Data(), model,
                 {"--modalities", "none", "--mixer", "attention", "--head-width", "4",
                  "--feed-forward", "relu", "--final-norm", "--input-scale", "5.5"});
  ASSERT_EQ(trained.exit_code, 0) << trained.output;
  EXPECT_THAT(trained.output, HasSubstr("features none"));
  EXPECT_THAT(
      trained.output,
      HasSubstr("of attention, heads of 4, relu feed-forward, final norm, input scale 5.5"));
  const ProgramResult inspected = RunProgram({"inspect", model});
  EXPECT_THAT(inspected.output, HasSubstr("cost"));
  EXPECT_THAT(inspected.output, HasSubstr("grow with the history"));
  EXPECT_THAT(inspected.output, HasSubstr("none: learned item vectors alone"));
  const ProgramResult evaluated =
      RunProgram({"evaluate", "--model", model, "--data", Data(), "--json", "--diagnose"});
  ASSERT_EQ(evaluated.exit_code, 0) << evaluated.output;
  const auto checkpoint = *Checkpoint::Open(model, {});
  EXPECT_NEAR(JsonLines(evaluated.output)[2]["ndcg@10"].get<double>(),
              checkpoint->info().test[2].metrics.ndcg[1], 1e-5);
  const std::string narrow = folder_->File("attention16.safetensors");
  ASSERT_EQ(RunProgram({"export", "--model", model, "--dim", "16", "-o", narrow}).exit_code, 0);
  const ProgramResult again =
      RunProgram({"evaluate", "--model", narrow, "--data", Data(), "--json"});
  EXPECT_EQ(JsonLines(again.output)[1]["ndcg@10"], JsonLines(evaluated.output)[1]["ndcg@10"]);
}

TEST_F(PipelineTest, TheJsonLogHasEveryEpochAndTheResult) {
  const std::vector<Json> lines = JsonLines(*ReadFile(folder_->File("log.jsonl")));
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0]["event"], "epoch");
  EXPECT_EQ(lines[0]["validation"].size(), 3u);
  EXPECT_EQ(lines[2]["event"], "done");
  EXPECT_GT(lines[0]["loss"].get<double>(), lines[1]["loss"].get<double>());
}

TEST_F(PipelineTest, EvaluateGivesTheMetricsThatTrainingStored) {
  const ProgramResult result =
      RunProgram({"evaluate", "--model", Model(), "--data", Data(), "--json", "--baselines",
                  "--plot", folder_->File("curves.svg")});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const std::vector<Json> rows = JsonLines(result.output);
  const auto checkpoint = *Checkpoint::Open(Model(), {});
  ASSERT_EQ(rows.size(), 3u + 3u);
  for (size_t size = 0; size < 3; ++size) {
    EXPECT_EQ(rows[size]["dim"], checkpoint->sizes().values()[size]);
    EXPECT_NEAR(rows[size]["ndcg@10"].get<double>(), checkpoint->info().test[size].metrics.ndcg[1],
                1e-5);
  }
  EXPECT_EQ(rows[3]["scorer"], "popularity");
  EXPECT_THAT(*ReadFile(folder_->File("curves.svg")), HasSubstr("Recall@10"));
  const ProgramResult masked =
      RunProgram({"evaluate", "--model", Model(), "--data", Data(), "--mask-seen", "--json"});
  EXPECT_EQ(JsonLines(masked.output)[0]["masked"], "padding and seen items");
}

TEST_F(PipelineTest, ADiagnosisAddsUpToTheMetrics) {
  std::vector<std::string> arguments = {"evaluate", "--model", Model(),     "--data", Data(),
                                        "--split",  "val",     "--json",    "--dims", "8,32",
                                        "--seed",   "5",       "--diagnose"};
  const std::string output = RunProgram(arguments).output;
  const std::vector<Json> rows = JsonLines(output);
  ASSERT_GT(rows.size(), 3u) << output;
  EXPECT_THAT(rows.back()["note"].get<std::string>(), HasSubstr("one modality, text"));
  for (const char* part : {"history length", "target popularity"}) {
    for (const auto& [dim, whole] : {std::pair(8, rows[0]), std::pair(32, rows[2])}) {
      double share = 0, recall = 0;
      int64_t users = 0;
      for (const Json& row : rows) {
        if (row.value("diagnosis", "") != part || row["dim"] != dim) continue;
        users += row["users"].get<int64_t>();
        share += row["share"].get<double>();
        recall += row["share"].get<double>() * row["recall@10"].get<double>();
      }
      EXPECT_EQ(users, whole["users"].get<int64_t>()) << part;
      EXPECT_NEAR(share, 1, 1e-4) << part;
      EXPECT_NEAR(recall, whole["recall@10"].get<double>(), 1e-4) << part;
    }
  }
  const auto row = std::find_if(rows.begin(), rows.end(), [](const Json& json) {
    return json.value("slice", "") == "history reversed" && json["dim"] == 32;
  });
  ASSERT_NE(row, rows.end());
  EXPECT_NEAR((*row)["ndcg@10_ratio"].get<double>(),
              (*row)["ndcg@10"].get<double>() / rows[2]["ndcg@10"].get<double>(), 1e-3);
  EXPECT_EQ(RunProgram(arguments).output, output);  // seeded
  std::erase(arguments, "--json");
  const ProgramResult table = RunProgram(arguments);
  ASSERT_EQ(table.exit_code, 0) << table.output;
  for (const char* part : {"items in history", "target's training events", "last item only", "R:8",
                           "N:32", "there is nothing to take out"})
    EXPECT_THAT(table.output, HasSubstr(part));
}

TEST_F(PipelineTest, AnExportedSizeEvaluatesAsTheBigModelDoes) {
  const std::string narrow = folder_->File("narrow.safetensors");
  ASSERT_EQ(RunProgram({"export", "--model", Model(), "--dim", "16", "-o", narrow}).exit_code, 0);
  const auto rows =
      JsonLines(RunProgram({"evaluate", "--model", narrow, "--data", Data(), "--json"}).output);
  const auto whole =
      JsonLines(RunProgram({"evaluate", "--model", Model(), "--data", Data(), "--json"}).output);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0], whole[0]);
  EXPECT_EQ(rows[1], whole[1]);
  EXPECT_THAT(RunProgram({"export", "--model", Model(), "--dim", "16", "-o", narrow}).output,
              HasSubstr("--overwrite"));
}

TEST_F(PipelineTest, InspectShowsItOnAPage) {
  const ProgramResult result = RunProgram({"inspect", Model(), "--tensors"});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  for (const char* part : {"8,16,32", "every checksum verified", "learning_rate",
                           "text encoder  yes", "items.level2", "validation items"}) {
    EXPECT_THAT(result.output, HasSubstr(part));
  }
}

// Recommend's scores are those that evaluate ranks by, for the same history at the same dim.
void CompareServerWithEvaluator(const std::string& model, const std::string& data,
                                const std::string& folder, int64_t users) {
  const auto checkpoint = *Checkpoint::Open(model, {});
  const auto dataset = *Dataset::Load(data, {.modalities = {}, .load_features = false});
  const auto encoder = *Encoder::Create(checkpoint->view(), checkpoint);
  const ModelScorer scorer(encoder.get());
  const RunningServer server = StartServer(model, folder);
  const RecommendClient client({.server = server.address, .timeout = absl::Seconds(60)});
  constexpr int kK = 20;
  for (int64_t u = 0; u < std::min(users, dataset->users()); ++u) {
    if (!IsEvaluated(dataset->sequence(u))) continue;
    const History history = HistoryOf(dataset->sequence(u), Split::kTest);
    const std::vector<History> histories = {history};
    ASSERT_TRUE(
        scorer
            .Score(histories,
                   [&](int size, std::span<const float> scores) {
                     v1::RecommendRequest request;
                     for (const int32_t item : history)
                       request.add_history_item_ids(std::string(dataset->catalogue->id(item)));
                     request.set_k(kK);
                     request.set_dim(checkpoint->sizes().values()[static_cast<size_t>(size)]);
                     request.set_include_seen(true);
                     const auto response = client.Recommend(request);
                     EXPECT_TRUE(response.ok()) << response.status();
                     if (!response.ok()) return response.status();
                     std::vector<float> best(scores.begin() + 1, scores.end());
                     std::sort(best.rbegin(), best.rend());
                     EXPECT_EQ(response->items_size(), kK);
                     for (int i = 0; i < response->items_size(); ++i) {
                       const auto item = dataset->catalogue->Find(response->items(i).item_id());
                       EXPECT_TRUE(item.has_value());
                       const float expected = scores[static_cast<size_t>(item.value_or(0))];
                       const float tolerance = 1e-5f * (1 + std::abs(expected));
                       EXPECT_NEAR(response->items(i).score(), expected, tolerance);
                       EXPECT_NEAR(response->items(i).score(), best[static_cast<size_t>(i)],
                                   tolerance);  // and in this order
                     }
                     return absl::OkStatus();
                   })
            .ok());
  }
  server.process->Signal(SIGTERM);
  EXPECT_EQ(server.process->WaitForExit().value_or(-1), 0);
}

TEST_F(PipelineTest, ServerScoresEqualTheEvaluators) {
  CompareServerWithEvaluator(Model(), Data(), folder_->path(), 40);
}

TEST_F(PipelineTest, ServerScoresEqualTheEvaluatorsOnRealData) {
  const char* data = std::getenv("NESTREC_DATA");
  if (data == nullptr || *data == '\0') GTEST_SKIP() << "NESTREC_DATA is not set";
  const std::string model = folder_->File("real.safetensors");
  const ProgramResult trained =
      RunProgram({"train", "--data", data, "-o", model, "--sizes", "8,32", "--epochs", "1",
                  "--batch-size", "512", "--lr", "2e-3"});
  ASSERT_EQ(trained.exit_code, 0) << trained.output;
  CompareServerWithEvaluator(model, data, folder_->path(), 200);
}

TEST_F(PipelineTest, AKilledTrainingGoesOnFromTheLastEpoch) {
  const std::string model = folder_->File("killed.safetensors");
  std::vector<std::string> arguments = {"train", "--data", Data(), "-o", model};
  arguments.insert(arguments.end(), kQuickTraining.begin(), kQuickTraining.end());
  *(std::find(arguments.begin(), arguments.end(), "--epochs") + 1) = "6";
  auto child = StartProgram(arguments);
  ASSERT_TRUE(child->WaitForOutput("epoch   2").ok());
  child->Signal(SIGKILL);
  EXPECT_EQ(child->WaitForExit().value_or(0), 128 + SIGKILL);
  EXPECT_TRUE(Checkpoint::Open(model, {}).ok());
  EXPECT_THAT(RunProgram(arguments).output, HasSubstr("--resume goes on"));
  arguments.push_back("--resume");
  const ProgramResult resumed = RunProgram(arguments);
  EXPECT_EQ(resumed.exit_code, 0) << resumed.output;
  EXPECT_THAT(resumed.output, HasSubstr("resumed after epoch"));
  EXPECT_THAT(resumed.output, HasSubstr("epoch   6"));
}

TEST_F(PipelineTest, CtrlCStopsTrainingAndSaysHowToGoOn) {
  std::vector<std::string> arguments = {"train", "--data", Data(), "-o",
                                        folder_->File("stopped.safetensors")};
  arguments.insert(arguments.end(), kQuickTraining.begin(), kQuickTraining.end());
  *(std::find(arguments.begin(), arguments.end(), "--epochs") + 1) = "500";
  auto child = StartProgram(arguments);
  ASSERT_TRUE(child->WaitForOutput("epoch   1").ok());
  child->Signal(SIGINT);
  EXPECT_EQ(child->WaitForExit().value_or(0), 130);
  EXPECT_THAT(child->output(), HasSubstr("--resume goes on from there"));
}

TEST_F(PipelineTest, SigtermInTheMiddleOfAnEpochSavesAndExitsWithZero) {
  std::vector<std::string> arguments = {"train", "--data", Data(), "-o",
                                        folder_->File("terminated.safetensors")};
  arguments.insert(arguments.end(), kQuickTraining.begin(), kQuickTraining.end());
  *(std::find(arguments.begin(), arguments.end(), "--epochs") + 1) = "500";
  auto child = StartProgram(arguments);
  ASSERT_TRUE(child->WaitForOutput("epoch   1").ok());
  child->Signal(SIGTERM);
  EXPECT_EQ(child->WaitForExit().value_or(-1), 0);
  EXPECT_THAT(child->output(), HasSubstr("--resume goes on from there"));
  EXPECT_TRUE(FileExists(folder_->File("terminated.safetensors.state")));
}

}  // namespace
}  // namespace nestrec
