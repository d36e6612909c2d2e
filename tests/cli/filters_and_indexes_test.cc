// The real program: filters on a command line, indexes that are kept between servers, and the bench
// of indexes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "tests/cli/program.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class FiltersAndIndexes : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(RandomModel({.sizes = {8, 16, 64}, .items = 500}).Write(model_).ok());
    ASSERT_TRUE(WriteFileAtomically(config_,
                                    "tiers { name: \"exact\" dim: 16 }\n"
                                    "tiers { name: \"graph\" dim: 16 index: \"HNSW16\" "
                                    "index_parameters: \"efSearch=64\" }\n")
                    .ok());
  }

  RunningServer Serve(std::vector<std::string> more = {}) {
    std::vector<std::string> arguments = {"serve",
                                          "--model",
                                          model_,
                                          "--config",
                                          config_,
                                          "--listen",
                                          "127.0.0.1:0",
                                          "--threads",
                                          "1",
                                          "--port-file",
                                          folder_.File("port")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    RunningServer server{.process = StartProgram(arguments), .address = {}};
    const auto line = server.process->WaitForOutput(" serving ");
    EXPECT_TRUE(line.ok()) << line.status();
    server.address = absl::StrCat(
        "127.0.0.1:", absl::StripSuffix(ReadFile(folder_.File("port")).value_or(""), "\n"));
    return server;
  }
  static void Stop(RunningServer& server) {
    server.process->Signal(SIGTERM);
    EXPECT_EQ(server.process->WaitForExit().value_or(-1), 0);
  }
  static ProgramResult Recommend(const RunningServer& server, std::vector<std::string> more) {
    std::vector<std::string> arguments = {"recommend", "--server", server.address};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunProgram(arguments);
  }
  std::vector<std::string> KeptFiles() const {
    std::vector<std::string> files;
    if (FileExists(model_ + ".indexes")) {
      for (const auto& entry : std::filesystem::directory_iterator(model_ + ".indexes")) {
        files.push_back(entry.path().string());
      }
    }
    return files;
  }

  TempFolder folder_;
  const std::string model_ = folder_.File("model.safetensors");
  const std::string config_ = folder_.File("tiers.textproto");
};

// Lines of a table that name an item: "   3      1.2345  Title 7   item-7".
int ItemsIn(const std::string& output) {
  int count = 0;
  for (const absl::string_view line : absl::StrSplit(output, '\n')) {
    count += absl::StrContains(line, "Title ") || absl::StrContains(line, "item-") ? 1 : 0;
  }
  return count;
}

TEST_F(FiltersAndIndexes, FiltersFromTheCommandLineHoldAtEveryTier) {
  RunningServer server = Serve();
  for (const char* tier : {"exact", "graph"}) {
    // Brand 4 are the items 4, 9, 14, ...; prices are n.50.
    const ProgramResult some = Recommend(
        server, {"--tier", tier, "--k", "20", "--where", "brand=Brand 4", "--where", "price<=25"});
    EXPECT_EQ(some.exit_code, 0) << some.output;
    EXPECT_EQ(ItemsIn(some.output), 5) << some.output;
    for (const char* title : {"Title 4 ", "Title 9 ", "Title 14 ", "Title 19 ", "Title 24 "}) {
      EXPECT_THAT(some.output, HasSubstr(title));
    }
    const ProgramResult json =
        Recommend(server, {"--tier", tier, "--filter",
                           R"({"none": {"filters": [{"range": {"field": "price", "min": 3}}]}})",
                           "--k", "20"});
    EXPECT_EQ(ItemsIn(json.output), 2) << json.output;
    const ProgramResult only =
        Recommend(server, {"--tier", tier, "--only", "item-7,item-8,nobody", "--k", "20"});
    EXPECT_EQ(ItemsIn(only.output), 2) << only.output;
    EXPECT_THAT(only.output, HasSubstr("of the only ones allowed (nobody)"));
    const ProgramResult capped =
        Recommend(server, {"--tier", tier, "--most", "brand=1", "--k", "20"});
    EXPECT_EQ(ItemsIn(capped.output), 5) << capped.output;
    const ProgramResult diverse =
        Recommend(server, {"--tier", tier, "--diversity", "0.2", "--k", "12"});
    EXPECT_EQ(ItemsIn(diverse.output), 12) << diverse.output;
  }
  const ProgramResult unknown = Recommend(server, {"--where", "colour=red"});
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_THAT(unknown.output, HasSubstr("filter.any_of.field: no item has a field \"colour\"; the "
                                        "fields are brand, item_id, price, title"));
  const ProgramResult bad = Recommend(server, {"--where", "price<cheap"});
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_THAT(bad.output, HasSubstr("--where: 'price<cheap' compares with what is no number"));
  EXPECT_EQ(Recommend(server, {"--most", "brand"}).exit_code, 2);
  EXPECT_EQ(Recommend(server, {"--filter", "{"}).exit_code, 2);
  EXPECT_EQ(Recommend(server, {"--only", " , "}).exit_code, 2);
  Stop(server);
}

TEST_F(FiltersAndIndexes, KeepsAnIndexForTheNextServer) {
  RunningServer first = Serve();
  EXPECT_THAT(first.process->output(), HasSubstr("index_saved dim=16 index=HNSW16"));
  const std::string answer = Recommend(first, {"--tier", "graph", "--json"}).output;
  Stop(first);
  ASSERT_EQ(KeptFiles().size(), 1u);

  RunningServer second = Serve();
  EXPECT_THAT(second.process->output(), HasSubstr("index_loaded dim=16 index=HNSW16"));
  const std::string again = Recommend(second, {"--tier", "graph", "--json"}).output;
  EXPECT_EQ(again.substr(0, again.find("served")), answer.substr(0, answer.find("served")));
  second.process->Signal(SIGKILL);
  EXPECT_TRUE(second.process->WaitForExit().ok());

  std::string damaged = *ReadFile(KeptFiles()[0]);
  damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 1);
  ASSERT_TRUE(WriteFileAtomically(KeptFiles()[0], damaged).ok());
  RunningServer third = Serve();
  EXPECT_THAT(third.process->output(), HasSubstr("warning index_not_loaded dim=16"));
  EXPECT_THAT(third.process->output(), HasSubstr("is damaged"));
  EXPECT_THAT(third.process->output(), HasSubstr("index_saved dim=16"));
  Stop(third);

  ASSERT_TRUE(RandomModel({.sizes = {8, 16, 64}, .items = 500, .seed = 9}).Write(model_).ok());
  RunningServer other = Serve();
  EXPECT_THAT(other.process->output(), HasSubstr("needed is one of source="));
  Stop(other);
  EXPECT_EQ(KeptFiles().size(), 1u);
}

TEST_F(FiltersAndIndexes, ServesWithoutKeepingWhereItMustNotOrCannot) {
  RunningServer none = Serve({"--index-folder", "none"});
  EXPECT_THAT(none.process->output(), HasSubstr("index_built dim=16 index=HNSW16"));
  EXPECT_THAT(none.process->output(), Not(HasSubstr("index_saved")));
  Stop(none);
  EXPECT_TRUE(KeptFiles().empty());
  RunningServer cannot = Serve({"--index-folder", config_ + "/indexes"});  // below a file
  EXPECT_THAT(cannot.process->output(), HasSubstr("warning index_not_saved dim=16"));
  EXPECT_EQ(ItemsIn(Recommend(cannot, {"--tier", "graph"}).output), 10);
  Stop(cannot);
}

TEST_F(FiltersAndIndexes, TwoServersAtOnceKeepOneFile) {
  RunningServer a = Serve();
  std::filesystem::remove_all(model_ + ".indexes");
  std::vector<std::unique_ptr<ChildProcess>> both;
  for (int i = 0; i < 2; ++i) {
    both.push_back(StartProgram({"serve", "--model", model_, "--config", config_, "--listen",
                                 "127.0.0.1:0", "--threads", "1"}));
  }
  for (auto& process : both) {
    EXPECT_TRUE(process->WaitForOutput(" serving ").ok());
    process->Signal(SIGTERM);
    EXPECT_EQ(process->WaitForExit().value_or(-1), 0);
  }
  Stop(a);
  EXPECT_EQ(KeptFiles().size(), 1u);
  RunningServer last = Serve();
  EXPECT_THAT(last.process->output(), HasSubstr("index_loaded dim=16"));
  Stop(last);
}

TEST_F(FiltersAndIndexes, TheBenchNamesATierThatReachesTheRecall) {
  const std::string plot = folder_.File("recall.svg");
  const ProgramResult table =
      RunProgram({"bench", "index", "--model", model_, "--dims", "16,64", "--index", "HNSW32",
                  "--index", "nested", "--recall", "0.9", "--queries", "10", "--plot", plot});
  EXPECT_EQ(table.exit_code, 0) << table.output;
  EXPECT_THAT(table.output, HasSubstr("500 items, 10 queries (vectors of items), k 10, one core"));
  EXPECT_THAT(table.output, HasSubstr("dim 64: Flat answers "));
  EXPECT_THAT(table.output,
              HasSubstr("cheapest with recall@10 >= 0.9: tiers { name: \"...\" dim: 16"));
  EXPECT_THAT(ReadFile(plot).value_or(""), HasSubstr("dim 16 HNSW32"));
  const ProgramResult json =
      RunProgram({"bench", "index", "--model", model_, "--dims", "8", "--index", "SQ8", "--index",
                  "IVF8,Flat", "--queries", "5", "--json"});
  EXPECT_THAT(json.output, HasSubstr(R"("index":"IVF8,Flat","index_parameters":"nprobe=1")"));
  EXPECT_EQ(RunProgram({"bench", "index", "--model", model_, "--dims", "12"}).exit_code, 2);
  EXPECT_EQ(RunProgram({"bench"}).exit_code, 2);
  EXPECT_EQ(RunProgram({"bench", "index", "--model", ""}).exit_code, 2);
  const ProgramResult missing = RunProgram({"bench", "index", "--model", folder_.File("none")});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.output, HasSubstr(folder_.File("none")));
}

}  // namespace
}  // namespace nestrec
