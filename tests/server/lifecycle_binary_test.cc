// Models that change under the real program: while requests run, while it is killed, and when what
// comes is no good.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/file.h"
#include "base/safetensors.h"
#include "base/status_macros.h"
#include "server/client.h"
#include "tests/testing/child_process.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class LifecycleBinary : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(MakeDirectories(models_).ok()); }

  std::string PathOf(const std::string& name) const {
    return models_ + "/" + name + ".safetensors";
  }
  void Put(const std::string& name, uint64_t seed, int64_t items = 200) const {
    ASSERT_TRUE(
        RandomModel({.sizes = {8, 16}, .items = items, .seed = seed}).Write(PathOf(name)).ok());
  }
  // The version that a checkpoint's answers name.
  std::string VersionOf(const std::string& name) const {
    const auto checkpoint = Checkpoint::Open(PathOf(name), {});
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return checkpoint.ok() ? (*checkpoint)->info().version : "";
  }

  std::unique_ptr<ChildProcess> Serve(const std::string& poll = "20ms",
                                      const std::vector<std::string>& more = {}) {
    const std::string port_file = folder_.File("port");
    std::vector<std::string> arguments = {
        NESTREC_PROGRAM,  "serve",       "--model",   models_, "--listen",     "127.0.0.1:0",
        "--admin-listen", "127.0.0.1:0", "--threads", "1",     "--model-poll", poll,
        "--port-file",    port_file};
    arguments.insert(arguments.end(), more.begin(), more.end());
    auto child = ChildProcess::Start(arguments);
    EXPECT_TRUE(child.ok()) << child.status();
    const auto line = (*child)->WaitForOutput(" serving ");
    EXPECT_TRUE(line.ok()) << line.status();
    for (const absl::string_view field : absl::StrSplit(line.value_or(""), ' ')) {
      if (absl::string_view value = field; absl::ConsumePrefix(&value, "address=")) {
        client_ = std::make_unique<RecommendClient>(
            RecommendClient::Options{.server = std::string(value)});
      } else if (absl::ConsumePrefix(&value, "admin_address=")) {
        admin_ = std::string(value);
      }
    }
    return *std::move(child);
  }
  // The exit code; what it printed is in output_.
  int Admin(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {NESTREC_PROGRAM, "admin"});
    arguments.insert(arguments.end(), {"--server", admin_, "--timeout", "60"});
    auto child = ChildProcess::Start(arguments);
    EXPECT_TRUE(child.ok());
    const int code = (*child)->WaitForExit().value_or(-1);
    output_ = (*child)->output();
    return code;
  }
  std::string ServedVersion() const {
    v1::RecommendRequest request;
    request.add_history_item_ids("item-7");
    const auto response = client_->Recommend(request);
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? response->served().model_version() : "";
  }
  static int64_t ResidentKib(pid_t pid) {
    std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
    for (std::string line; std::getline(status, line);) {
      if (!absl::StartsWith(line, "VmRSS:")) continue;
      int64_t kib = 0;
      EXPECT_TRUE(
          absl::SimpleAtoi(absl::StripSuffix(absl::StripPrefix(line, "VmRSS:"), " kB"), &kib));
      return kib;
    }
    return -1;
  }

  const TempFolder folder_;
  const std::string models_ = folder_.File("models");
  std::unique_ptr<RecommendClient> client_;
  std::string admin_, output_;
};

TEST_F(LifecycleBinary, EveryRequestIsAnsweredWhileModelsChange) {
  Put("v1", 1);
  const auto server = Serve();
  std::atomic<bool> done = false;
  std::atomic<int> answered = 0;
  std::vector<std::thread> callers;
  for (int t = 0; t < 2; ++t) {
    callers.emplace_back([&] {
      while (!done) {
        EXPECT_NE(ServedVersion(), "");
        ++answered;
      }
    });
  }
  for (int version = 2; version <= 6; ++version) {
    const std::string name = absl::StrCat("v", version);
    Put(name, static_cast<uint64_t>(version));
    ASSERT_EQ(Admin({"reload"}), 0) << output_;
    EXPECT_EQ(ServedVersion(), VersionOf(name));
  }
  done = true;
  for (std::thread& caller : callers) caller.join();
  EXPECT_GT(answered, 10);
}

TEST_F(LifecycleBinary, SeesANewVersionByItself) {
  Put("v1", 1);
  const auto server = Serve();
  EXPECT_EQ(ServedVersion(), VersionOf("v1"));
  Put("v2", 2);
  ASSERT_TRUE(server->WaitForOutput(absl::StrCat("models_serving stable=", VersionOf("v2"))).ok());
  EXPECT_EQ(ServedVersion(), VersionOf("v2"));
  ASSERT_TRUE(server->WaitForOutput("model_unloaded name=v1").ok());
}

TEST_F(LifecycleBinary, ATruncatedVersionIsRefusedAndTheOldOneServesOn) {
  Put("v1", 1);
  Put("complete", 2);
  std::filesystem::rename(PathOf("complete"), folder_.File("complete"));
  const auto server = Serve();
  const auto size = std::filesystem::file_size(folder_.File("complete"));
  int number = 2;
  for (const uintmax_t kept : {uintmax_t{0}, uintmax_t{7}, size / 2, size - 1}) {
    const std::string part = folder_.File("part");
    std::filesystem::copy_file(folder_.File("complete"), part);
    std::filesystem::resize_file(part, kept);
    const std::string name = absl::StrCat("v", number++);
    std::filesystem::rename(part, PathOf(name));
    EXPECT_EQ(Admin({"reload"}), 1);
    EXPECT_THAT(output_, HasSubstr(name + ".safetensors"));
    EXPECT_EQ(ServedVersion(), VersionOf("v1"));
  }
}

// A file that a later nestrec may have written: whole and with right checksums, in a format that
// this program does not know.
TEST_F(LifecycleBinary, AVersionOfANewerFormatIsRefusedByNameAndTheOldOneServesOn) {
  Put("v1", 1);
  Put("v2", 2);
  std::filesystem::rename(PathOf("v2"), folder_.File("known"));
  const auto server = Serve();
  {
    const auto known = *SafetensorsFile::Open(folder_.File("known"), true);
    SafetensorsWriter writer;
    for (const TensorInfo& tensor : known->tensors()) {
      if (tensor.dtype == DType::kF32) {
        writer.Add(tensor.name, tensor.shape, *known->Floats(tensor.name, tensor.shape));
      } else if (tensor.dtype == DType::kI64) {
        writer.Add(tensor.name, tensor.shape, *known->Int64s(tensor.name, tensor.shape));
      } else {
        ASSERT_EQ(tensor.dtype, DType::kU8) << tensor.name;
        writer.AddText(tensor.name, *known->Text(tensor.name));
      }
    }
    for (const auto& [key, value] : known->metadata()) writer.SetMetadata(key, value);
    // As it is, it would serve: what is refused below is its format alone.
    ASSERT_TRUE(writer.Write(PathOf("v2")).ok());
    ASSERT_EQ(Admin({"reload"}), 0) << output_;
    EXPECT_EQ(ServedVersion(), VersionOf("v2"));
    writer.SetMetadata("format_version", "9");
    ASSERT_TRUE(writer.Write(PathOf("v3")).ok());
  }
  EXPECT_EQ(Admin({"reload"}), 1);
  EXPECT_THAT(
      output_,
      AllOf(HasSubstr("v3.safetensors: checkpoint format version 9, but this program reads"),
            HasSubstr("use a newer nestrec")));
  EXPECT_EQ(ServedVersion(), VersionOf("v2"));
}

TEST_F(LifecycleBinary, VersionsThatAreWrittenAtOnceAreServedWhole) {
  Put("v1", 1);
  const auto server = Serve("10ms");
  std::vector<std::thread> writers;
  for (int w = 0; w < 2; ++w) {
    writers.emplace_back([&, w] {
      for (int i = 0; i < 20; ++i) {
        Put("v2", static_cast<uint64_t>(10 + w));  // the same file, by both
        Put(absl::StrCat("v3-", w), static_cast<uint64_t>(20 + w));
      }
    });
  }
  for (int i = 0; i < 50; ++i) EXPECT_NE(ServedVersion(), "");
  for (std::thread& writer : writers) writer.join();
  ASSERT_EQ(Admin({"reload"}), 0) << output_;
  EXPECT_EQ(ServedVersion(), VersionOf("v3-1"));
  EXPECT_THAT(server->output(), ::testing::Not(HasSubstr("model_refused")));
}

// Writes as cp, cat and head do: into the file that is there.
void WriteInPlace(const std::string& path, const std::string& bytes, size_t step) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  for (size_t at = 0; at < bytes.size(); at += step) {
    file << bytes.substr(at, step) << std::flush;
  }
}

TEST_F(LifecycleBinary, PlainWritesIntoAVersionThatIsBeingLoadedHarmNobody) {
  Put("v1", 1);
  Put("big", 2, 40'000);
  const std::string bytes = *ReadFile(PathOf("big"));
  const std::string version = VersionOf("big");
  std::filesystem::remove(PathOf("big"));
  const auto server = Serve("10ms");
  for (int i = 0; i < 12; ++i) {
    // Again and again while what was written before is being verified, indexed or served.
    WriteInPlace(PathOf("v2"), bytes, i % 3 == 0 ? bytes.size() : bytes.size() / 50 + 1);
    if (i % 2 == 0) std::filesystem::resize_file(PathOf("v2"), bytes.size() / 3);
    const auto answer = client_->Recommend({});
    // UNAVAILABLE for as long as a version that served has lost its file.
    EXPECT_TRUE(answer.ok() || absl::IsUnavailable(answer.status())) << answer.status();
  }
  WriteInPlace(PathOf("v2"), bytes, bytes.size());
  ASSERT_EQ(Admin({"reload"}), 0) << output_ << server->output();
  EXPECT_EQ(ServedVersion(), version);
  server->Signal(SIGTERM);
  EXPECT_EQ(server->WaitForExit().value_or(-1), 0) << server->output();
}

TEST_F(LifecycleBinary, AServingFileThatIsCutShortIsGivenUpForTheNextGoodVersion) {
  Put("v1", 1);
  Put("v2", 2, 5'000);
  const std::string bytes = *ReadFile(PathOf("v2"));
  const std::string version = VersionOf("v2");
  const auto server = Serve("20ms");
  EXPECT_EQ(ServedVersion(), version);
  std::filesystem::resize_file(PathOf("v2"), 100);
  ASSERT_TRUE(server->WaitForOutput("model_lost name=v2").ok()) << server->output();
  ASSERT_TRUE(server->WaitForOutput(absl::StrCat("models_serving stable=", VersionOf("v1"))).ok());
  EXPECT_EQ(ServedVersion(), VersionOf("v1"));
  WriteInPlace(PathOf("v2"), bytes, bytes.size());
  ASSERT_EQ(Admin({"reload"}), 0) << output_;
  EXPECT_EQ(ServedVersion(), version);
}

TEST_F(LifecycleBinary, TheOnlyModelCutShortAnswersUnavailableUntilItIsWhole) {
  Put("v1", 1, 5'000);
  const std::string bytes = *ReadFile(PathOf("v1"));
  const auto server = Serve("20ms");
  const std::string version = ServedVersion();
  std::filesystem::resize_file(PathOf("v1"), 0);
  ASSERT_TRUE(server->WaitForOutput("model_lost name=v1").ok()) << server->output();
  for (int i = 0; i < 3; ++i) {
    const auto answer = client_->Recommend({});
    EXPECT_TRUE(absl::IsUnavailable(answer.status())) << answer.status();
  }
  WriteInPlace(PathOf("v1"), bytes, bytes.size());
  ASSERT_EQ(Admin({"reload"}), 0) << output_;
  EXPECT_EQ(ServedVersion(), version);
}

TEST_F(LifecycleBinary, NothingIsAnsweredFromAKeptIndexThatIsCutShortWhileItServes) {
  ASSERT_TRUE(RandomModel({.sizes = {16, 64}, .items = 5'000, .seed = 1}).Write(PathOf("v1")).ok());
  const std::string config = folder_.File("serve.textproto");
  ASSERT_TRUE(WriteFileAtomically(config,
                                  "tiers { name: \"codes\" dim: 64 index: \"nested\" }\n"
                                  "tiers { name: \"lists\" dim: 64 index: \"IVF16,Flat\" }\n")
                  .ok());
  const std::vector<std::string> more = {"--config", config, "--index-folder",
                                         folder_.File("indexes")};
  const auto ask = [&](const std::string& tier) -> absl::StatusOr<std::vector<std::string>> {
    v1::RecommendRequest request;
    request.set_tier(tier);
    request.add_history_item_ids("item-7");
    NESTREC_ASSIGN_OR_RETURN(const v1::RecommendResponse response, client_->Recommend(request));
    std::vector<std::string> ids;
    for (const auto& item : response.items()) ids.push_back(item.item_id());
    return ids;
  };
  for (const auto& [tier, file] :
       {std::pair<std::string, std::string>{"codes", "nested"}, {"lists", "IVF16"}}) {
    {
      const auto server = Serve("20ms", more);  // keeps its indexes for the next one
      server->Signal(SIGTERM);
      ASSERT_EQ(server->WaitForExit().value_or(-1), 0) << server->output();
    }
    const auto server = Serve("20ms", more);
    const auto whole = ask(tier);
    ASSERT_TRUE(whole.ok()) << whole.status();
    std::string path;
    for (const auto& kept :
         std::filesystem::recursive_directory_iterator(folder_.File("indexes"))) {
      const std::string name = kept.path().filename();
      if (absl::StrContains(name, "64") && absl::StrContains(name, file)) path = kept.path();
    }
    ASSERT_NE(path, "") << server->output();
    ASSERT_GT(std::filesystem::file_size(path), 100'000u);
    std::filesystem::resize_file(path, 4096);
    // Codes are read where trials spoke for them, lists always.
    const bool always = tier == "lists";
    int asked = 0, unavailable = 0, answered = 0;
    for (const absl::Time end = absl::Now() + absl::Minutes(1);
         (unavailable == 0 || answered == 0) && (always || unavailable > 0 || asked < 100) &&
         absl::Now() < end;
         ++asked) {
      const auto answer = ask(tier);
      if (answer.ok()) {
        EXPECT_EQ(*answer, *whole);
        answered += unavailable > 0 ? 1 : 0;
      } else {
        EXPECT_TRUE(absl::IsUnavailable(answer.status())) << answer.status();
        ++unavailable;
      }
    }
    EXPECT_TRUE(unavailable > 0 || !always);
    if (unavailable > 0) {
      EXPECT_GT(answered, 0) << tier << " does not serve again\n" << server->output();
      EXPECT_TRUE(server->WaitForOutput("model_lost name=v1").ok()) << server->output();
      EXPECT_TRUE(server->WaitForOutput("index_not_loaded").ok()) << server->output();
    }
  }
}

TEST_F(LifecycleBinary, ServesAgainAfterAKillInTheMiddleOfAReload) {
  Put("v1", 1);
  for (int round = 0; round < 3; ++round) {
    const auto server = Serve();
    const std::string name = absl::StrCat("v", round + 2);
    // Large enough that loading it takes a while.
    Put(name, static_cast<uint64_t>(round + 2), 20'000);
    ASSERT_TRUE(server->WaitForOutput("model_loaded path=" + PathOf(name)).ok());
    server->Signal(SIGKILL);
    EXPECT_EQ(server->WaitForExit().value_or(-1), 128 + SIGKILL);
    const auto again = Serve();
    EXPECT_EQ(ServedVersion(), VersionOf(name));
    again->Signal(SIGTERM);
    EXPECT_EQ(again->WaitForExit().value_or(-1), 0);
  }
}

TEST_F(LifecycleBinary, AnOperatorRollsBackAndTriesACanary) {
  Put("v1", 1);
  Put("v2", 2);
  const auto server = Serve();
  EXPECT_EQ(ServedVersion(), VersionOf("v2"));
  ASSERT_EQ(Admin({"labels", "--stable", "v1"}), 0) << output_;
  EXPECT_THAT(output_, HasSubstr("AVAILABLE  stable"));
  EXPECT_EQ(ServedVersion(), VersionOf("v1"));
  ASSERT_EQ(Admin({"labels", "--stable", "v1", "--canary", "*", "--canary-share", "1"}), 0);
  EXPECT_EQ(ServedVersion(), VersionOf("v2"));
  EXPECT_EQ(Admin({"labels", "--stable", "v9"}), 1);
  EXPECT_THAT(output_, HasSubstr("there are v1, v2"));
  ASSERT_EQ(Admin({"status"}), 0);
  EXPECT_THAT(output_, HasSubstr("canary share 1"));
}

TEST_F(LifecycleBinary, MemoryDoesNotGrowWithReloads) {
  Put("v0", 1);
  const auto server = Serve("1h");
  const auto reload = [&](int number) {
    std::filesystem::remove(PathOf(absl::StrCat("v", number - 1)));
    Put(absl::StrCat("v", number), static_cast<uint64_t>(number));
    ASSERT_EQ(Admin({"reload"}), 0) << output_;
    ASSERT_TRUE(server->WaitForOutput(absl::StrCat("model_unloaded name=v", number - 1)).ok());
    EXPECT_NE(ServedVersion(), "");
  };
  for (int i = 1; i <= 5; ++i) reload(i);
  const int64_t early = ResidentKib(server->pid());
  for (int i = 6; i <= 40; ++i) reload(i);
  // A leak of the model alone would be more.
  EXPECT_LE(ResidentKib(server->pid()), early * 102 / 100 + 512);
}

}  // namespace
}  // namespace nestrec
