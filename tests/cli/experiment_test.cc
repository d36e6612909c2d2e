// `nestrec experiment`: the real program on a small shop.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cli/program.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

class ExperimentTest : public testing::Test {
 protected:
  ExperimentTest() {
    const ProgramResult made = MakeShop(folder_.path(), 120, 60);
    EXPECT_EQ(made.exit_code, 0) << made.output;
  }

  ProgramResult Run(const std::string& name, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {"experiment", name,
                                          "--data",     folder_.File("data"),
                                          "-o",         folder_.File("out"),
                                          "--dim",      "16",
                                          "--epochs",   "1",
                                          "--threads",  "1",
                                          "--blocks",   "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunProgram(arguments);
  }

  TempFolder folder_;
};

TEST_F(ExperimentTest, TrainsEveryVariantAndWritesTableJsonAndPlot) {
  const ProgramResult result = Run("separate");
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const absl::StatusOr<std::string> text = ReadFile(folder_.File("out/separate/results.json"));
  ASSERT_TRUE(text.ok()) << text.status();
  const Json rows = Json::parse(*text);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0]["variant"], "nested");
  EXPECT_EQ(rows[0]["test"].size(), 2u);  // dims 8 and 16
  EXPECT_EQ(rows[2]["variant"], "dim 16 alone");
  EXPECT_EQ(rows[2]["test"].size(), 1u);
  // A nested layer of 8 and 16 has 8 * 8 + 8 * 16 weights where the plain one has 16 * 16.
  EXPECT_LT(rows[0]["network_bytes"], rows[2]["network_bytes"]);
  // One block of an LRU: 14 vectors of 16 or 8 floats.
  EXPECT_EQ(rows[0]["activation_bytes"], 14 * 16 * 4);
  EXPECT_EQ(rows[1]["activation_bytes"], 14 * 8 * 4);
  for (const Json& row : rows) EXPECT_GT(row["training_seconds"], 0.0);
  EXPECT_THAT(*ReadFile(folder_.File("out/separate/results.md")), HasSubstr("| dim 16 alone | |"));
  // The models of one size are the points of one line.
  const std::string plot = *ReadFile(folder_.File("out/separate/results.svg"));
  EXPECT_THAT(plot, HasSubstr(">one model per size</text>"));
  size_t lines = 0;
  for (size_t at = plot.find("<path "); at != std::string::npos; at = plot.find("<path ", at + 1)) {
    ++lines;
  }
  EXPECT_EQ(lines, 2u);
}

TEST_F(ExperimentTest, DoesNotTrainAgainWhatIsThere) {
  ASSERT_EQ(Run("density").exit_code, 0);
  const auto before = *ReadFile(folder_.File("out/density/results.json"));
  const ProgramResult again = Run("density");
  ASSERT_EQ(again.exit_code, 0) << again.output;
  EXPECT_THAT(again.output, Not(HasSubstr("epoch 1")));
  EXPECT_EQ(*ReadFile(folder_.File("out/density/results.json")), before);
  const ProgramResult other = Run("density", {"--lr", "0.5"});
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_THAT(other.output, HasSubstr("is of another recipe or other data"));
}

TEST_F(ExperimentTest, DoesNotTakeModelsOfOtherFeatures) {
  ASSERT_EQ(Run("density").exit_code, 0);
  const std::string path = folder_.File("data/features/text.npy");
  std::string bytes = *ReadFile(path);
  bytes.replace(bytes.size() - 4, 4, std::string("\0\0\x80\x3f", 4));  // the last value: 1
  ASSERT_TRUE(WriteFileAtomically(path, bytes).ok());
  const ProgramResult other = Run("density");
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_THAT(other.output, HasSubstr("was trained on other features of text"));
}

TEST_F(ExperimentTest, AveragesTheScoresOfSeeds) {
  const ProgramResult result = Run("seeds");
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const Json rows = Json::parse(*ReadFile(folder_.File("out/seeds/results.json")));
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[3]["variant"], "scores of the three averaged");
  ASSERT_EQ(rows[3]["test"].size(), 2u);
  EXPECT_GT(rows[3]["test"][1]["recall@50"], 0.0);
  EXPECT_NE(rows[3]["test"][1], rows[0]["test"][1]);
}

TEST_F(ExperimentTest, NamesWhatThereIs) {
  const ProgramResult unknown = Run("nope");
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_THAT(unknown.output, HasSubstr("\"nope\" is none of the experiments recipes, "));
  const ProgramResult list = RunProgram({"experiment", "--list"});
  EXPECT_EQ(list.exit_code, 0);
  EXPECT_THAT(list.output, HasSubstr("blocks       How many blocks?"));
  const ProgramResult sampling = Run("sampling");
  EXPECT_EQ(sampling.exit_code, 1);
  EXPECT_THAT(sampling.output, HasSubstr("there is nothing to sample"));
  const ProgramResult fusion = Run("fusion");
  EXPECT_EQ(fusion.exit_code, 1);
  EXPECT_THAT(fusion.output, HasSubstr("the data has 1 modality"));
}

}  // namespace
}  // namespace nestrec
