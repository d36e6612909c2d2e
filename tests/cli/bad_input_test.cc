// What the program says to input that it cannot use: never a crash, always the thing, its value and
// the cure.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/npy.h"
#include "tests/cli/program.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class BadInputTest : public testing::Test {
 protected:
  // A data folder: three users, three items, text features of width 2.
  std::string MakeData(
      const std::string& interactions = "a 1 2 3\nb 2 3 1\nc 3 1 2\n",
      const std::string& items =
          "{\"item_id\":\"x y\"}\n{\"item_id\":\"\xe5\x93\x81\"}\n{\"item_id\":\"z\"}\n",
      const Matrix& features = {.rows = 3, .columns = 2, .values = {1, 2, 3, 4, 5, 6}}) {
    const std::string data = folder_.File(absl::StrCat("data", count_++));
    std::filesystem::create_directories(data + "/features");
    EXPECT_TRUE(WriteFileAtomically(data + "/interactions.txt", interactions).ok());
    EXPECT_TRUE(WriteFileAtomically(data + "/items.jsonl", items).ok());
    EXPECT_TRUE(WriteNpy(data + "/features/text.npy", features).ok());
    return data;
  }

  ProgramResult TrainOn(const std::string& data, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {
        "train",    "--data", data,         "-o", folder_.File("m.safetensors"),
        "--epochs", "1",      "--overwrite"};
    if (std::find(more.begin(), more.end(), "--sizes") == more.end()) {
      arguments.insert(arguments.end(), {"--sizes", "4,8"});
    }
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunProgram(arguments);
  }

  // Exit code 1 and one line that begins with "error:" and holds every part.
  static void ExpectError(const ProgramResult& result, const std::vector<std::string>& parts) {
    EXPECT_EQ(result.exit_code, 1) << result.output;
    EXPECT_THAT(result.output, HasSubstr("error: "));
    for (const std::string& part : parts) EXPECT_THAT(result.output, HasSubstr(part));
  }

  TempFolder folder_;
  int count_ = 0;
};

TEST_F(BadInputTest, TheSmallestDataTrains) {
  const ProgramResult result = TrainOn(MakeData());
  EXPECT_EQ(result.exit_code, 0) << result.output;
}

TEST_F(BadInputTest, DataThatCannotBeTrainedOnIsNamed) {
  ExpectError(TrainOn(folder_.File("nowhere")), {"nowhere"});
  ExpectError(TrainOn(MakeData("")), {"interactions.txt"});
  ExpectError(TrainOn(MakeData("a 1 2 3\n", "")), {"items.jsonl"});
  ExpectError(TrainOn(MakeData("a 1 2 9\n")), {"interactions.txt", "9"});
  ExpectError(TrainOn(MakeData("a 1 two 3\n")), {"interactions.txt", "two"});
  ExpectError(TrainOn(MakeData("a 1 2\nb 2 3\n")), {"none of the 2 users has 3 events"});
  ExpectError(TrainOn(MakeData("a 1 2 3\n",
                               "{\"item_id\":\"x\"}\n{\"item_id\":\"x\"}\n{\"item_id\":\"z\"}\n")),
              {"items.jsonl", "x"});
  ExpectError(
      TrainOn(MakeData("a 1 2 3\n", "{\"item_id\":\"x\"}\nnot json\n{\"item_id\":\"z\"}\n")),
      {"items.jsonl", "2"});
}

TEST_F(BadInputTest, FeaturesThatDoNotFitAreNamed) {
  const std::string users = "a 1 2 3\nb 2 3 1\nc 3 1 2\n";
  const std::string items = "{\"item_id\":\"x\"}\n{\"item_id\":\"y\"}\n{\"item_id\":\"z\"}\n";
  const float nan = std::numeric_limits<float>::quiet_NaN();
  ExpectError(
      TrainOn(MakeData(users, items, {.rows = 3, .columns = 2, .values = {1, 2, nan, 4, 5, 6}})),
      {"text.npy", "row 1"});
  ExpectError(TrainOn(MakeData(users, items, {.rows = 2, .columns = 2, .values = {1, 2, 3, 4}})),
              {"text.npy", "2", "3"});
  ExpectError(TrainOn(MakeData(), {"--modalities", "image"}), {"image"});
}

TEST_F(BadInputTest, FlagsOutsideTheirLimitsAreNamed) {
  const std::string data = MakeData();
  ExpectError(TrainOn(data, {"--sizes", "8,8"}), {"8,8", "not strictly increasing"});
  ExpectError(TrainOn(data, {"--sizes", "8,9"}), {"1 column wide"});
  ExpectError(TrainOn(data, {"--sizes", "eight"}), {"'eight'"});
  ExpectError(TrainOn(data, {"--sizes", ""}), {"not a whole number"});
  ExpectError(TrainOn(data, {"--lr", "-1"}), {"learning rate: -1"});
  ExpectError(TrainOn(data, {"--dropout", "1"}), {"dropout: 1"});
  EXPECT_EQ(TrainOn(data, {"--no-such-flag"}).exit_code, 2);
  EXPECT_EQ(RunProgram({}).exit_code, 2);
  EXPECT_EQ(RunProgram({"conquer"}).exit_code, 2);
  EXPECT_EQ(RunProgram({"--help"}).exit_code, 0);
  EXPECT_THAT(RunProgram({"--version"}).output, HasSubstr("nestrec "));
}

TEST_F(BadInputTest, OutputThatCannotBeWrittenIsNamed) {
  const std::string data = MakeData();
  std::vector<std::string> arguments = {"train",   "--data", data,
                                        "--sizes", "4,8",    "--epochs",
                                        "1",       "-o",     folder_.File("no/such/m.safetensors")};
  ExpectError(RunProgram(arguments), {"no/such/m.safetensors"});
  arguments.back() = "/proc/m.safetensors";
  ExpectError(RunProgram(arguments), {"/proc/m.safetensors"});
}

TEST_F(BadInputTest, AFullDiskKeepsTheCheckpointThatWasThere) {
  const std::string disk = folder_.File("disk");
  std::filesystem::create_directories(disk);
  if (mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=256k") != 0)
    GTEST_SKIP() << "cannot mount a small tmpfs: " << std::strerror(errno);
  const std::string data = MakeData();
  std::vector<std::string> arguments = {
      "train", "--data", data, "--sizes", "4,8", "--epochs", "1", "-o", disk + "/m.safetensors"};
  EXPECT_EQ(RunProgram(arguments).exit_code, 0);
  const std::string before = ReadFile(disk + "/m.safetensors").value_or("");
  EXPECT_FALSE(before.empty());
  arguments = {"train",      "--data", data,
               "--sizes",    "4,256",  "--epochs",
               "1",          "-o",     disk + "/m.safetensors",
               "--overwrite"};
  const ProgramResult full = RunProgram(arguments);
  EXPECT_EQ(ReadFile(disk + "/m.safetensors").value_or(""), before);
  umount(disk.c_str());
  ExpectError(full, {"No space left on device", "m.safetensors"});
}

TEST_F(BadInputTest, ModelsThatAreNotModelsAreNamedByEveryCommand) {
  const std::string path = folder_.File("bad.safetensors");
  const std::string data = MakeData();
  for (const std::string& content :
       {std::string(), std::string("not a model at all"), std::string(1000, '\0')}) {
    ASSERT_TRUE(WriteFileAtomically(path, content).ok());
    ExpectError(RunProgram({"inspect", path}), {"bad.safetensors"});
    ExpectError(RunProgram({"evaluate", "--model", path, "--data", data}), {"bad.safetensors"});
    ExpectError(RunProgram({"export", "--model", path, "--dim", "8", "-o", folder_.File("out")}),
                {"bad.safetensors"});
    ExpectError(RunProgram({"serve", "--model", path, "--listen", "127.0.0.1:0"}),
                {"bad.safetensors"});
  }
  ExpectError(RunProgram({"inspect", folder_.File("missing")}), {"missing", "No such file"});
  ExpectError(RunProgram({"inspect", folder_.path()}), {"not a regular file"});
}

TEST_F(BadInputTest, OutputThatIsLostIsAnError) {
  const std::string model = folder_.File("random.safetensors");
  ASSERT_TRUE(RandomModel({}).Write(model).ok());
  const std::string command = absl::StrCat(NESTREC_PROGRAM, " inspect ", model, " >/dev/full 2>&1");
  EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 1);
}

TEST_F(BadInputTest, AModelOfOtherDataIsRefused) {
  const std::string model = folder_.File("random.safetensors");
  ASSERT_TRUE(RandomModel({}).Write(model).ok());
  ExpectError(RunProgram({"evaluate", "--model", model, "--data", MakeData()}), {"200 items", "3"});
  ExpectError(RunProgram({"export", "--model", model, "--dim", "9", "-o", folder_.File("out")}),
              {"9 is not one of", "8,16,32"});
}

}  // namespace
}  // namespace nestrec
