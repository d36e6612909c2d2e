// What the program says to input that it cannot use: never a crash, always the thing, its value and
// the cure.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <algorithm>
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
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

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
  static void ExpectError(const ProgramResult& result, const std::vector<std::string>& parts,
                          int exit_code = 1) {
    EXPECT_EQ(result.exit_code, exit_code) << result.output;
    EXPECT_THAT(result.output, HasSubstr("error: "));
    for (const std::string& part : parts) EXPECT_THAT(result.output, HasSubstr(part));
  }
  // The same with exit code 2 and where to get help.
  static void ExpectUsageError(const ProgramResult& result, std::vector<std::string> parts) {
    parts.push_back("--help for more information");
    ExpectError(result, parts, 2);
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
  const std::string huge =
      MakeData(users, items, {.rows = 3, .columns = 2, .values = {1, 2, 3, 4, 5, -1e38f}});
  const ProgramResult result = TrainOn(huge, {"--recipe", "paper"});
  ExpectError(result, {"row 2 (item 3), column 1 of text is -1e+38", "nothing was written"});
  EXPECT_THAT(result.output, Not(HasSubstr("--lr")));
  for (const char* scaling : {"sqrt_width", "whiten"}) {
    EXPECT_EQ(TrainOn(huge, {"--feature-scaling", scaling}).exit_code, 0) << scaling;
  }
}

TEST_F(BadInputTest, FlagsOutsideTheirLimitsAreNamed) {
  const std::string data = MakeData();
  ExpectUsageError(TrainOn(data, {"--sizes", "8,8"}), {"--sizes: 8,8", "not strictly increasing"});
  ExpectUsageError(TrainOn(data, {"--sizes", "8,9"}), {"1 column wide"});
  ExpectUsageError(TrainOn(data, {"--sizes", "0,8"}), {"--sizes: 0 in 0,8", "at least 2 columns"});
  ExpectUsageError(TrainOn(data, {"--sizes", "99999999999999999999"}), {"2 to 65536"});
  ExpectUsageError(TrainOn(data, {"--sizes", "eight"}), {"'eight'"});
  ExpectUsageError(TrainOn(data, {"--sizes", ""}), {"--sizes: is empty"});
  ExpectUsageError(TrainOn(data, {"--lr", "-1"}), {"--lr: -1 is outside"});
  ExpectUsageError(TrainOn(data, {"--mixer", "rnn"}), {"--mixer: rnn", "lru,gru,attention"});
  ExpectUsageError(TrainOn(data, {"--head-width", "0"}), {"--head-width: 0 is outside 1 to 65536"});
  ExpectUsageError(TrainOn(data, {"--input-scale", "nan"}), {"--input-scale: nan is outside"});
  ExpectUsageError(TrainOn(data, {"--feed-forward", "tanh"}), {"--feed-forward: tanh"});
  ExpectUsageError(TrainOn(data, {"--device", "tpu"}), {"--device: tpu", "cpu,cuda"});
  ExpectUsageError(TrainOn(data, {"--dropout", "1"}), {"--dropout: 1 is outside 0 to 0.99"});
  ExpectUsageError(TrainOn(data, {"--batch-size", "0"}),
                   {"error: --batch-size: 0 is outside 1 to 1048576\n"});
  ExpectUsageError(TrainOn(data, {"--seed", "-1"}),
                   {"--seed: -1 is outside 0 to 18446744073709551615"});
  ExpectUsageError(TrainOn(data, {"--seed", "18446744073709551616"}),
                   {"--seed: 18446744073709551616 is outside"});
  ExpectUsageError(TrainOn(data, {"--seed", "1.5"}), {"--seed: '1.5' is not a whole number"});
  ExpectUsageError(TrainOn(data, {"--seed", ""}), {"--seed: "});
  ExpectUsageError(TrainOn(data, {"--name", "\x1b[31mred"}),
                   {"--name: '\\x1b[31mred' has control"});
  ExpectUsageError(TrainOn(data, {"--name", "caf\xe9"}), {"--name: not valid UTF-8: 'caf\\xe9'"});
  ExpectUsageError(TrainOn(data, {"--no-such-flag"}), {"error: ", "Run nestrec train --help"});
  ExpectUsageError(RunProgram({"train", "--data", data, "--dim", "0"}), {"--dim: 0 is outside 2"});
  ExpectUsageError(RunProgram({"train", "--data", data, "--dim", "9"}), {"--dim: 9 makes a level"});
  ExpectUsageError(RunProgram({}), {"error: ", "Run nestrec --help"});
  ExpectUsageError(RunProgram({"conquer"}), {"'conquer' is not a subcommand"});
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"make-shop"}, {"prepare", "--events", folder_.File("no.csv")}}) {
    for (const char* seed : {"-1", "18446744073709551616", "x"}) {
      std::vector<std::string> arguments = command;
      arguments.insert(arguments.end(), {"--out", folder_.File("out"), "--seed", seed});
      ExpectUsageError(RunProgram(arguments), {"--seed: ", seed, "0 to 18446744073709551615"});
    }
  }
  ExpectUsageError(RunProgram({"make-shop", "--out", folder_.File("out"), "--users", "1"}),
                   {"--users: 1 is outside 10 to 10000000"});
  ExpectUsageError(RunProgram({"prepare", "--events", "no.csv", "--out", folder_.File("out"),
                               "--text-width", "0"}),
                   {"--text-width: 0 is outside 1 to 4096"});
  ExpectUsageError(RunProgram({"export", "--model", "m", "--dim", "0", "-o", folder_.File("out")}),
                   {"--dim: 0 is outside 2 to 65536"});
  ExpectUsageError(RunProgram({"evaluate", "--model", "m", "--data", "d", "--dims", "8"}),
                   {"--dims requires --diagnose"});
  ExpectUsageError(
      RunProgram({"evaluate", "--model", "m", "--data", "d", "--diagnose", "--dims", "16,8"}),
      {"--dims: 16,8 is not strictly increasing"});
  ExpectUsageError(
      RunProgram({"evaluate", "--model", "m", "--data", "d", "--diagnose", "--mask-seen"}),
      {"--mask-seen excludes --diagnose"});
  EXPECT_EQ(RunProgram({"--help"}).exit_code, 0);
  EXPECT_THAT(RunProgram({"--version"}).output, HasSubstr("nestrec "));
}

// Either the libtorch that this was built with knows no such device, or there is none here.
TEST_F(BadInputTest, ADeviceThatIsNotThereIsRefusedBeforeAnythingIsRead) {
  const ProgramResult result = TrainOn(folder_.File("no data"), {"--device", "cuda"});
  if (result.output.find("no data") != std::string::npos) GTEST_SKIP() << "there is a device here";
  ExpectError(result, {"error: --device cuda: ", ", or use --device cpu"});
  EXPECT_THAT(result.output, AnyOf(HasSubstr("-DTorch_ROOT names its folder"),
                                   HasSubstr("see what nvidia-smi says")));
  EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 1) << result.output;
}

TEST_F(BadInputTest, OutputThatCannotBeWrittenIsNamed) {
  const std::string data = MakeData();
  std::vector<std::string> arguments = {"train",   "--data", data,
                                        "--sizes", "4,8",    "--epochs",
                                        "1",       "-o",     folder_.File("no/such/m.safetensors")};
  ExpectError(RunProgram(arguments), {"no/such/m.safetensors"});
  arguments.back() = "/proc/m.safetensors";
  ExpectError(RunProgram(arguments), {"/proc/m.safetensors"});
  arguments.back() = folder_.path();
  ExpectError(RunProgram(arguments), {folder_.path(), "it is a folder; give the path of a file"});
  // Known before the work, and without harm to what is there.
  const std::string log = folder_.File("log.jsonl");
  ASSERT_TRUE(WriteFileAtomically(log, "an earlier run\n").ok());
  arguments.insert(arguments.end(), {"--json", log});
  ExpectError(RunProgram(arguments), {"it is a folder"});
  EXPECT_EQ(*ReadFile(log), "an earlier run\n");
  ExpectError(RunProgram({"evaluate", "--model", "no-model", "--data", data, "--plot",
                          folder_.File("no/such/x.svg")}),
              {"no/such/x.svg"});
}

TEST_F(BadInputTest, AFailedRunLeavesNoFolderBehind) {
  const std::string out = folder_.File("new/data");
  ExpectError(RunProgram({"prepare", "--events", folder_.File("absent.csv"), "--out", out}),
              {"absent.csv"});
  EXPECT_FALSE(FileExists(folder_.File("new")));
  // A file size limit of 1 block stops the program while it writes.
  const std::string command =
      absl::StrCat("trap '' XFSZ; ulimit -f 1; ", NESTREC_PROGRAM, " make-shop --out ", out, " >",
                   folder_.File("output"), " 2>&1");
  EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 1);
  EXPECT_FALSE(FileExists(folder_.File("new"))) << *ReadFile(folder_.File("output"));
}

TEST_F(BadInputTest, BytesFromOutsideAreEscapedInMessages) {
  const std::string path = folder_.File("g.csv");
  ASSERT_TRUE(WriteFileAtomically(path, "\x1b[31m,\xff\xfe,b\n1,2,3\n").ok());
  const ProgramResult prepared =
      RunProgram({"prepare", "--events", path, "--out", folder_.File("out")});
  ExpectError(prepared, {"\\x1b[31m", "\\xff\\xfe"});
  const ProgramResult flag = RunProgram({"train", "--data", "d", "--no-such\x1b[31m\xff"});
  ExpectUsageError(flag, {"\\x1b[31m\\xff"});
  const ProgramResult file = RunProgram({"inspect", "\x1b[31m\xff"});
  ExpectError(file, {"\\x1b[31m\\xff"});
  for (const ProgramResult& result : {prepared, flag, file}) {
    EXPECT_THAT(result.output, Not(HasSubstr("\x1b")));
    EXPECT_THAT(result.output, Not(HasSubstr("\xff")));
  }
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

TEST_F(BadInputTest, AModelIsDiagnosedOnItsOwnDataAndSizesAlone) {
  const std::string data = MakeData();
  const std::string model = folder_.File("m.safetensors");
  ASSERT_EQ(RunProgram({"train", "--data", data, "--sizes", "4,8", "--epochs", "1", "-o", model})
                .exit_code,
            0);
  ExpectError(
      RunProgram({"evaluate", "--model", model, "--data", data, "--diagnose", "--dims", "4,16"}),
      {"16 is not one of this model's sizes 4,8"});
  const std::string events = absl::StrCat(data, "/interactions.txt");
  ASSERT_TRUE(WriteFileAtomically(events, absl::StrCat(*ReadFile(events), "more 1 2 3\n")).ok());
  EXPECT_THAT(RunProgram({"evaluate", "--model", model, "--data", data}).output,
              HasSubstr("warning"));
  ExpectError(RunProgram({"evaluate", "--model", model, "--data", data, "--diagnose"}),
              {"trained on other data", "fingerprint"});
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
