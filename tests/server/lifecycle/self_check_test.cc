#include "server/lifecycle/self_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/file.h"
#include "model/dataset.h"
#include "model/evaluator.h"
#include "model/self_check.h"
#include "server/snapshot.h"
#include "tests/testing/cycle_dataset.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

class SelfCheckTest : public ::testing::Test {
 protected:
  SelfCheckTest()
      : data_(MakeCycleDataset(/*users=*/90, /*items=*/40)),
        model_({.sizes = {8, 16, 32}, .blocks = 2, .items = 40}) {}

  std::vector<SelfCheckUser> Users() const {
    const auto encoder = Encoder::Create(model_.view(), nullptr);
    EXPECT_TRUE(encoder.ok());
    const auto evaluation =
        Evaluate(ModelScorer(encoder->get()), *data_, {.split = Split::kTest, .threads = 1});
    EXPECT_TRUE(evaluation.ok()) << evaluation.status();
    auto users = MakeSelfCheck(**encoder, *data_, evaluation->ranks);
    EXPECT_TRUE(users.ok()) << users.status();
    return *std::move(users);
  }
  // Writes the model with these users, loads it up to max_dim and checks it.
  absl::Status Check(std::vector<SelfCheckUser> users, int max_dim = 0,
                     ItemStorage storage = ItemStorage::kFloat32, bool encode_only = false) const {
    ModelInfo info = model_.info();
    info.self_check = std::move(users);
    const std::string path = folder_.path() + "/model.safetensors";
    EXPECT_TRUE(WriteCheckpoint(path, model_.view(), info, model_.catalogue(), nullptr).ok());
    const auto snapshot = Snapshot::Load(
        {.path = path, .max_dim = max_dim, .item_storage = storage, .encode_only = encode_only},
        Log([](absl::string_view) {}));
    return snapshot.ok() ? SelfCheck(**snapshot, log_) : snapshot.status();
  }

  const TempFolder folder_;
  const std::shared_ptr<Dataset> data_;
  const RandomModel model_;
  mutable std::vector<std::string> lines_;  // that the check logged
  const Log log_{[this](absl::string_view line) { lines_.emplace_back(line); }};
};

TEST_F(SelfCheckTest, PassesWhatWasComputedByTheSameModelAtEverySizeThatIsLoaded) {
  const auto users = Users();
  EXPECT_EQ(users.size(), kMostSelfCheckUsers);
  EXPECT_EQ(Check(users), absl::OkStatus());
  EXPECT_EQ(Check(users, /*max_dim=*/16), absl::OkStatus());
  EXPECT_EQ(Check({}), absl::OkStatus());
  EXPECT_EQ(Check(users, /*max_dim=*/0, ItemStorage::kFloat16), absl::OkStatus());
}

TEST_F(SelfCheckTest, SaysThatAModelServesUnchecked) {
  EXPECT_EQ(Check(Users()), absl::OkStatus());
  EXPECT_THAT(lines_, testing::IsEmpty());
  EXPECT_EQ(Check({}), absl::OkStatus());
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_THAT(lines_[0], HasSubstr("self_check_skipped"));
}

TEST_F(SelfCheckTest, RefusesAScoreThatIsOff) {
  auto users = Users();
  users[7].scores[1] += 0.01f;
  const absl::Status status = Check(users);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("a score of size 16 is"));
}

TEST_F(SelfCheckTest, ChecksScoresWhereNothingIsSearched) {
  auto users = Users();
  const auto check = [&] {
    return Check(users, /*max_dim=*/0, ItemStorage::kFloat32, /*encode_only=*/true);
  };
  EXPECT_EQ(check(), absl::OkStatus());
  users[3].scores[2] += 0.01f;
  EXPECT_THAT(std::string(check().message()), HasSubstr("a score of size 32 is"));
}

TEST_F(SelfCheckTest, RefusesAnotherRecall) {
  auto users = Users();
  for (auto& user : users) user.ranks[2] = user.ranks[2] <= 10 ? 11 : 10;
  EXPECT_THAT(std::string(Check(users).message()), HasSubstr("at size 32 the next item of"));
}

TEST_F(SelfCheckTest, AnExportedSizeKeepsItsPart) {
  ModelInfo info = model_.info();
  info.self_check = Users();
  const std::string path = folder_.path() + "/model.safetensors", part = path + ".part";
  ASSERT_TRUE(WriteCheckpoint(path, model_.view(), info, model_.catalogue(), nullptr).ok());
  const auto whole = Checkpoint::Open(path, {});
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ((*whole)->info().self_check, info.self_check);
  ASSERT_TRUE((*whole)->Export(2, part).ok());
  const auto snapshot = Snapshot::Load({.path = part}, Log([](absl::string_view) {}));
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ((*snapshot)->checkpoint().info().self_check.at(0).scores.size(), 2u);
  EXPECT_EQ(SelfCheck(**snapshot, log_), absl::OkStatus());
}

TEST_F(SelfCheckTest, RefusesEntriesThatCannotBe) {
  const auto refused = [&](auto&& change) {
    auto users = Users();
    change(users[3]);
    return std::string(Check(users).message());
  };
  EXPECT_THAT(refused([](SelfCheckUser& user) { user.target = 41; }),
              HasSubstr("metadata 'self_check': an item number outside 1 to 40"));
  EXPECT_THAT(refused([](SelfCheckUser& user) { user.history.push_back(0); }),
              HasSubstr("an item number outside"));
  EXPECT_THAT(refused([](SelfCheckUser& user) { user.scores.pop_back(); }),
              HasSubstr("2 scores and 3 ranks for 3 sizes"));
}

}  // namespace
}  // namespace nestrec
