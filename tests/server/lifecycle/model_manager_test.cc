#include "server/lifecycle/model_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "server/sampling.h"
#include "server/text_proto.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr absl::Duration kPatience = absl::Minutes(2);

class ModelManagerTest : public ::testing::Test {
 protected:
  void Put(const std::string& name, uint64_t seed) {
    ASSERT_TRUE(
        RandomModel({.sizes = {8, 16}, .items = 20, .seed = seed}).Write(PathOf(name)).ok());
  }
  void PutDamaged(const std::string& name) {
    ASSERT_TRUE(WriteFileAtomically(PathOf(name), "this is no checkpoint").ok());
  }
  void PutLabels(const std::string& text) {
    ASSERT_TRUE(WriteFileAtomically(folder_.path() + "/labels.textproto", text).ok());
  }
  std::string PathOf(const std::string& name) const {
    return folder_.path() + "/" + name + ".safetensors";
  }
  static v1::ModelLabels Labels(const std::string& text) {
    v1::ModelLabels labels;
    EXPECT_TRUE(ParseTextProto(text, "test", labels).ok());
    return labels;
  }

  // A manager that looks when it is asked to, and hardly by itself.
  absl::StatusOr<std::unique_ptr<ModelManager>> Create(const std::string& path = "",
                                                       absl::Duration poll = absl::Hours(1)) {
    return ModelManager::Create({.path = path.empty() ? folder_.path() : path,
                                 .load =
                                     [this](const std::string& model) {
                                       if (before_load_) before_load_(model);
                                       return Snapshot::Load({.path = model},
                                                             Log([](absl::string_view) {}));
                                     },
                                 .poll = poll,
                                 .log = Log([this](absl::string_view line) {
                                   const std::lock_guard lock(lines_mutex_);
                                   lines_.emplace_back(line);
                                 })});
  }
  std::unique_ptr<ModelManager> Start(const std::string& path = "",
                                      absl::Duration poll = absl::Hours(1)) {
    auto manager = Create(path, poll);
    EXPECT_TRUE(manager.ok()) << manager.status();
    (*manager)->StartUpdates([this](const Snapshot& next) { return prepare_(next); });
    return *std::move(manager);
  }
  // "v1: AVAILABLE stable", ...
  static std::vector<std::string> Told(const ModelManager& manager) {
    std::vector<std::string> told;
    const v1::GetStatusResponse status = manager.Status();
    for (const v1::ModelVersion& version : status.versions()) {
      std::string line =
          absl::StrCat(version.name(), ": ",
                       v1::ModelState_Name(version.state()).substr(strlen("MODEL_STATE_")));
      for (const std::string& label : version.labels()) absl::StrAppend(&line, " ", label);
      told.push_back(line);
    }
    return told;
  }
  int Lines(absl::string_view with) {
    const std::lock_guard lock(lines_mutex_);
    return static_cast<int>(
        std::count_if(lines_.begin(), lines_.end(),
                      [&](const std::string& line) { return absl::StrContains(line, with); }));
  }

  const TempFolder folder_;
  std::function<void(const std::string&)> before_load_;
  std::function<absl::Status(const Snapshot&)> prepare_ = [](const Snapshot&) {
    return absl::OkStatus();
  };
  std::mutex lines_mutex_;
  std::vector<std::string> lines_;
};

TEST_F(ModelManagerTest, TheNewestVersionServesAndANewerOneReplacesIt) {
  Put("v9", 9);
  Put("v10", 10);
  const auto manager = Start();
  const auto before = manager->Stable();
  EXPECT_THAT(Told(*manager), ElementsAre("v9: ON_DISK", "v10: AVAILABLE stable"));
  Put("v11", 11);
  ASSERT_EQ(manager->Reload(kPatience), absl::OkStatus());
  EXPECT_NE(manager->Stable()->version(), before->version());
  EXPECT_THAT(Told(*manager), ElementsAre("v9: ON_DISK", "v10: DRAINING", "v11: AVAILABLE stable"));
  EXPECT_EQ(manager->stats().loaded, 2);
}

TEST_F(ModelManagerTest, AModelGoesWhenItsLastRequestHasEnded) {
  Put("v1", 1);
  const auto manager = Start();
  std::shared_ptr<const Snapshot> request = manager->For("somebody");
  const std::weak_ptr<const Snapshot> old = request;
  Put("v2", 2);
  ASSERT_EQ(manager->Reload(kPatience), absl::OkStatus());
  EXPECT_THAT(Told(*manager), ElementsAre("v1: DRAINING", "v2: AVAILABLE stable"));
  EXPECT_EQ(request->sizes().max_dim(), 16);  // still there
  request.reset();
  ASSERT_EQ(manager->Reload(kPatience), absl::OkStatus());  // looks, and lets go
  while (!old.expired()) std::this_thread::yield();
  EXPECT_THAT(Told(*manager), ElementsAre("v1: ON_DISK", "v2: AVAILABLE stable"));
  EXPECT_EQ(Lines("model_unloaded name=v1"), 1);
}

TEST_F(ModelManagerTest, ADamagedVersionIsRefusedOnceAndTheOldOneServesOn) {
  Put("v1", 1);
  const auto manager = Start();
  const auto before = manager->Stable();
  PutDamaged("v2");
  const absl::Status status = manager->Reload(kPatience);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("v2.safetensors"));
  EXPECT_EQ(manager->Stable(), before);
  EXPECT_THAT(Told(*manager), ElementsAre("v1: AVAILABLE stable", "v2: REFUSED"));
  EXPECT_THAT(std::string(manager->Status().versions(1).error()), HasSubstr("v2.safetensors"));
  EXPECT_EQ(manager->stats().refused, 1);
  Put("v2", 2);  // repaired
  EXPECT_EQ(manager->Reload(kPatience), absl::OkStatus());
  EXPECT_THAT(Told(*manager)[1], HasSubstr("v2: AVAILABLE"));
}

TEST_F(ModelManagerTest, ARefusedVersionIsUnmetAtEveryLookUntilItIsGone) {
  Put("v1", 1);
  const auto manager = Start("", absl::Milliseconds(5));
  EXPECT_FALSE(manager->stats().unmet);
  PutDamaged("v2");
  const auto eventually = [&](auto&& condition) {
    for (const absl::Time end = absl::Now() + kPatience; !condition() && absl::Now() < end;) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    return condition();
  };
  ASSERT_TRUE(eventually([&] { return manager->stats().refused == 1; }));
  // A look after the one that refused it.
  PutLabels("canary: 'v1' canary_share: 0.5");
  ASSERT_TRUE(eventually([&] { return manager->Status().labels().canary() == "v1"; }));
  EXPECT_TRUE(manager->stats().unmet);
  EXPECT_EQ(manager->stats().refused, 1);
  ASSERT_TRUE(std::filesystem::remove(PathOf("v2")));
  EXPECT_TRUE(eventually([&] { return !manager->stats().unmet; }));
}

TEST_F(ModelManagerTest, StartsWithTheNewestVersionThatIsGood) {
  Put("v1", 1);
  PutDamaged("v2");
  const auto manager = Start();
  EXPECT_THAT(Told(*manager), ElementsAre("v1: AVAILABLE stable", "v2: REFUSED"));
  EXPECT_EQ(Lines("model_refused"), 1);
}

TEST_F(ModelManagerTest, StartsWithNothingOnlyToSayWhy) {
  EXPECT_THAT(std::string(Create().status().message()), HasSubstr("holds no model"));
  EXPECT_EQ(Create(folder_.path() + "/none").status().code(), absl::StatusCode::kNotFound);
  PutDamaged("v1");
  EXPECT_THAT(std::string(Create().status().message()), HasSubstr("v1.safetensors"));
  EXPECT_FALSE(Create(PathOf("v1")).ok());
}

TEST_F(ModelManagerTest, AFileThatIsReplacedIsLoadedAgain) {
  Put("only", 1);
  const auto manager = Start(PathOf("only"));
  const std::string before = manager->Stable()->version();
  Put("only", 2);
  ASSERT_EQ(manager->Reload(kPatience), absl::OkStatus());
  const std::string after = manager->Stable()->version();
  EXPECT_NE(after, before);
  std::filesystem::remove(PathOf("only"));
  EXPECT_FALSE(manager->Reload(kPatience).ok());
  EXPECT_FALSE(manager->Reload(kPatience).ok());
  EXPECT_EQ(manager->Stable()->version(), after);
  EXPECT_EQ(Lines("models_unreadable"), 1);
  EXPECT_EQ(manager->SetLabels({}, kPatience).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(ModelManagerTest, RequestsAreServedWhileAModelLoads) {
  Put("v1", 1);
  const auto manager = Start();
  const auto before = manager->Stable();
  std::promise<void> loading, go_on;
  before_load_ = [&](const std::string&) {
    loading.set_value();
    go_on.get_future().wait();
  };
  Put("v2", 2);
  auto reloaded = std::async(std::launch::async, [&] { return manager->Reload(kPatience); });
  loading.get_future().wait();
  EXPECT_EQ(manager->For("somebody"), before);
  EXPECT_THAT(Told(*manager), ElementsAre("v1: AVAILABLE stable", "v2: LOADING"));
  EXPECT_EQ(manager->Reload(absl::Milliseconds(1)).code(), absl::StatusCode::kDeadlineExceeded);
  go_on.set_value();
  EXPECT_EQ(reloaded.get(), absl::OkStatus());
  EXPECT_NE(manager->For("somebody"), before);
}

TEST_F(ModelManagerTest, AVersionThatHadNoRoomBesideADrainingOneIsTriedAgainWhenThatIsGone) {
  Put("v1", 1);
  const auto manager = Start();
  std::shared_ptr<const Snapshot> request = manager->Stable();  // takes its time
  Put("v2", 2);
  ASSERT_EQ(manager->Reload(kPatience), absl::OkStatus());
  std::atomic<bool> room = false;
  prepare_ = [&](const Snapshot&) {
    return room ? absl::OkStatus() : absl::ResourceExhaustedError("v1 is in the way");
  };
  Put("v3", 3);
  EXPECT_THAT(std::string(manager->Reload(kPatience).message()), HasSubstr("v1 is in the way"));
  EXPECT_THAT(Told(*manager), ElementsAre("v1: DRAINING", "v2: AVAILABLE stable", "v3: REFUSED"));
  room = true;
  request.reset();
  // Nobody asks, and the next look at the folder is an hour away. v2 drains for a moment.
  const std::vector<std::string> due = {"v1: ON_DISK", "v2: ON_DISK", "v3: AVAILABLE stable"};
  const absl::Time end = absl::Now() + absl::Minutes(1);
  while (absl::Now() < end && Told(*manager) != due) std::this_thread::yield();
  EXPECT_EQ(Told(*manager), due);
}

TEST_F(ModelManagerTest, AModelThatCannotBePreparedDoesNotServe) {
  Put("v1", 1);
  const auto manager = Start();
  prepare_ = [](const Snapshot&) { return absl::DataLossError("it answers nonsense"); };
  Put("v2", 2);
  EXPECT_THAT(std::string(manager->Reload(kPatience).message()), HasSubstr("nonsense"));
  EXPECT_THAT(Told(*manager), ElementsAre("v1: AVAILABLE stable", "v2: REFUSED"));
}

TEST_F(ModelManagerTest, ACanaryServesItsShareOfUsersAndAlwaysTheSame) {
  Put("v1", 1);
  Put("v2", 2);
  PutLabels("stable: 'v1' canary: '*' canary_share: 0.3");
  const auto manager = Start();
  const auto stable = manager->Stable();
  EXPECT_THAT(Told(*manager), ElementsAre("v1: AVAILABLE stable", "v2: AVAILABLE canary"));
  int canary = 0;
  for (int user = 0; user < 2000; ++user) {
    const std::string id = absl::StrCat("user-", user);
    const bool its = manager->For(id) != stable;
    EXPECT_EQ(its, SampleOf(SaltOf("canary v2"), id) < 0.3);
    EXPECT_EQ(manager->For(id) != stable, its);
    canary += its;
  }
  EXPECT_NEAR(canary, 600, 80);
  canary = 0;
  for (int draw = 0; draw < 2000; ++draw) canary += manager->For("") != stable;
  EXPECT_NEAR(canary, 600, 80);
}

TEST_F(ModelManagerTest, AShadowIsDrawnForTheStableModelsAnswersAlone) {
  Put("v1", 1);
  Put("v2", 2);
  PutLabels("stable: 'v1' canary: 'v2' shadow_share: 0.5");
  const auto manager = Start();
  const auto stable = manager->Stable();
  int shadowed = 0;
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(manager->For(absl::StrCat(i)), stable);
    const auto shadow = manager->ShadowFor(*stable);
    shadowed += shadow != nullptr;
    if (shadow != nullptr) {
      EXPECT_EQ(manager->ShadowFor(*shadow), nullptr);
    }
  }
  EXPECT_NEAR(shadowed, 500, 60);
}

TEST_F(ModelManagerTest, LabelsRollOutAndBackAndOutliveTheServer) {
  Put("v1", 1);
  Put("v2", 2);
  {
    const auto manager = Start();
    const auto v2 = manager->Stable()->version();
    const auto kept = manager->SetLabels(Labels("stable: 'v1'"), kPatience);
    ASSERT_TRUE(kept.ok()) << kept.status();
    EXPECT_TRUE(*kept);
    EXPECT_NE(manager->Stable()->version(), v2);
  }
  const auto manager = Start();
  EXPECT_THAT(Told(*manager)[0], HasSubstr("v1: AVAILABLE stable"));
  ASSERT_TRUE(
      manager->SetLabels(Labels("stable: 'v1' canary: 'v2' canary_share: 1"), kPatience).ok());
  EXPECT_THAT(Told(*manager), ElementsAre("v1: AVAILABLE stable", "v2: AVAILABLE canary"));
  ASSERT_TRUE(manager->SetLabels(Labels("stable: 'v2'"), kPatience).ok());
  EXPECT_THAT(Told(*manager)[1], HasSubstr("v2: AVAILABLE stable"));
}

TEST_F(ModelManagerTest, LabelsThatCannotBeMetChangeNothing) {
  Put("v1", 1);
  PutDamaged("v2");
  const auto manager = Start();
  EXPECT_EQ(manager->SetLabels(Labels("stable: 'v7'"), kPatience).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(manager->SetLabels(Labels("canary: '*'"), kPatience).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(manager->SetLabels(Labels("stable: 'v2'"), kPatience).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(manager->Status().labels().stable(), IsEmpty());
  EXPECT_THAT(Told(*manager)[0], HasSubstr("v1: AVAILABLE stable"));
}

TEST_F(ModelManagerTest, UnreadableLabelsChangeNothing) {
  Put("v1", 1);
  Put("v2", 2);
  PutLabels("stable: 'v1'");
  const auto manager = Start();
  PutLabels("stabel: 'v2'");
  ASSERT_EQ(manager->Reload(kPatience), absl::OkStatus());
  ASSERT_EQ(manager->Reload(kPatience), absl::OkStatus());
  EXPECT_THAT(Told(*manager)[0], HasSubstr("v1: AVAILABLE stable"));
  EXPECT_EQ(Lines("model_labels_unreadable"), 1);
  EXPECT_EQ(Lines("labels.textproto:1:"), 1);
}

TEST_F(ModelManagerTest, ManyAskAtOnceWhileModelsChange) {
  Put("v1", 1);
  const auto manager = Start();
  std::atomic<bool> done = false;
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      while (!done) {
        EXPECT_EQ(manager->For("x")->catalogue().size(), 20);
        manager->Status();
      }
    });
  }
  threads.emplace_back([&] {
    for (int i = 0; i < 5; ++i) EXPECT_EQ(manager->Reload(kPatience), absl::OkStatus());
  });
  for (uint64_t seed = 2; seed < 8; ++seed) {
    Put(absl::StrCat("v", seed), seed);
    EXPECT_EQ(manager->Reload(kPatience), absl::OkStatus());
  }
  threads.back().join();
  done = true;
  threads.pop_back();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Told(*manager).back(), "v7: AVAILABLE stable");
}

}  // namespace
}  // namespace nestrec
