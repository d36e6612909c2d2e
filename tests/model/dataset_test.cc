#include "model/dataset.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/user_id.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class DatasetTest : public ::testing::Test {
 protected:
  DatasetTest() {
    std::string pattern = ::testing::TempDir() + "/nestrec_dataset_XXXXXX";
    folder_ = mkdtemp(pattern.data());
    Write("items.jsonl",
          "{\"item_id\": \"a\"}\n{\"asin\": \"b c\"}\n{\"item_id\": 7, \"asin\": \"x\"}\n");
    Write("interactions.txt", "ann 1 2 3\nbob 3 3\n");
  }
  ~DatasetTest() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& content) {
    const std::filesystem::path path = std::filesystem::path(folder_) / name;
    std::filesystem::create_directories(path.parent_path());
    ASSERT_TRUE(WriteFileAtomically(path.string(), content).ok());
  }
  void WriteFeatures(const std::string& name, int64_t rows, int64_t columns, float value = 1) {
    std::filesystem::create_directories(folder_ + "/features");
    const Matrix matrix{.rows = rows,
                        .columns = columns,
                        .values = std::vector<float>(static_cast<size_t>(rows * columns), value)};
    ASSERT_TRUE(WriteNpy(folder_ + "/features/" + name + ".npy", matrix).ok());
  }
  absl::StatusOr<std::shared_ptr<const Dataset>> Load(std::vector<std::string> modalities = {},
                                                      bool features = false) {
    return Dataset::Load(folder_, {.modalities = std::move(modalities), .load_features = features});
  }
  void ExpectError(absl::StatusCode code, const std::string& part,
                   std::vector<std::string> modalities = {}, bool features = false) {
    const auto data = Load(std::move(modalities), features);
    EXPECT_EQ(data.status().code(), code) << data.status();
    EXPECT_THAT(std::string(data.status().message()), HasSubstr(part));
  }

  std::string folder_;
};

TEST_F(DatasetTest, LoadsUsersItemsAndFeaturesInOrder) {
  WriteFeatures("zeta", 3, 1);
  WriteFeatures("image", 3, 2);
  WriteFeatures("audio", 3, 5);
  WriteFeatures("text", 3, 4);
  const auto loaded = Load({}, true);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const Dataset& data = **loaded;
  EXPECT_EQ(data.users(), 2);
  EXPECT_EQ(data.items(), 3);
  EXPECT_THAT(data.user_ids, ElementsAre("ann", "bob"));
  EXPECT_THAT(data.sequence(0), ElementsAre(1, 2, 3));
  EXPECT_THAT(data.sequence(1), ElementsAre(3, 3));
  EXPECT_EQ(data.catalogue->id(1), "a");
  EXPECT_EQ(data.catalogue->id(2), "b c");
  EXPECT_EQ(data.catalogue->id(3), "7");
  ASSERT_EQ(data.modalities.size(), 4u);
  EXPECT_EQ(data.modalities[0].name, "text");
  EXPECT_EQ(data.modalities[1].name, "image");
  EXPECT_EQ(data.modalities[2].name, "audio");
  EXPECT_EQ(data.modalities[3].name, "zeta");
  EXPECT_EQ(data.modalities[0].features.columns, 4);
}

TEST_F(DatasetTest, TakesTheModalitiesAskedForInTheirOrder) {
  WriteFeatures("image", 3, 2);
  WriteFeatures("text", 3, 4);
  const auto data = Load({"image", "text"}, true);
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ((*data)->modalities[0].name, "image");
  const auto none = Load({"none"}, true);
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_TRUE((*none)->modalities.empty());
  ExpectError(absl::StatusCode::kNotFound, "no modality 'none'", {"none", "text"}, true);
  ExpectError(absl::StatusCode::kNotFound, "no modality 'sound'", {"sound"}, true);
  ExpectError(absl::StatusCode::kNotFound, "it has text, image", {"../text"}, true);
  ExpectError(absl::StatusCode::kInvalidArgument, "asked for twice", {"text", "text"}, true);
}

TEST_F(DatasetTest, AcceptsWindowsLineEndsByteOrderMarkTabsAndTrailingBlankLines) {
  Write("items.jsonl", "\xef\xbb\xbf{\"item_id\": \"a\"}\r\n  {\"item_id\": \"b\"}  \r\n\r\n \n\n");
  Write("interactions.txt",
        "\xef\xbb\xbf"
        "ann\t1 \t2 \r\n\r\n  bob 2\r\n\n\n");
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT((*loaded)->user_ids, ElementsAre("ann", "bob"));
  EXPECT_THAT((*loaded)->sequence(0), ElementsAre(1, 2));
  EXPECT_EQ((*loaded)->catalogue->record(2), "{\"item_id\": \"b\"}");
}

TEST_F(DatasetTest, DecodesUserIds) {
  Write("interactions.txt", "Ann%20Lee 1\n100%25 2\n50% 3\nJürgen%C2%A0X 3\n");
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT((*loaded)->user_ids, ElementsAre("Ann Lee", "100%", "50%", "Jürgen\xc2\xa0X"));
}

TEST(UserId, EncodingIsOneWordAndDecodesToItself) {
  EXPECT_EQ(EncodeUserId("Ann Lee\t%\n"), "Ann%20Lee%09%25%0A");
  EXPECT_EQ(EncodeUserId("日本\xe3\x80\x80\xe2\x80\xa8"), "日本%E3%80%80%E2%80%A8");
  Random random(7);
  for (int round = 0; round < 2000; ++round) {
    std::string id;
    for (int64_t length = random.Index(12); length >= 0; --length) {
      id.push_back(static_cast<char>(random.Index(4) == 0 ? random.Index(256)
                                                          : "% 0aF\xe2\x80\x8a"[random.Index(8)]));
    }
    const std::string word = EncodeUserId(id);
    EXPECT_EQ(word.find_first_of(" \t\r\n\v\f"), std::string::npos);
    ASSERT_EQ(DecodeUserId(word), id);
  }
}

TEST_F(DatasetTest, RefusesBadItemLinesAndNamesThem) {
  const struct {
    const char* items;
    const char* message;
  } cases[] = {
      {"{\"item_id\": \"a\"}\nnope\n", "items.jsonl:2: not valid JSON"},
      {"[1]\n", "items.jsonl:1: not a JSON object"},
      {"{\"item_id\": \"a\"}\n\n{\"item_id\": \"b\"}\n", "items.jsonl:2: the line is empty"},
      {"{\"title\": \"a\"}\n", "items.jsonl:1: the item has no id"},
      {"{\"item_id\": null}\n", "has no id"},
      {"{\"item_id\": \"\"}\n", "item_id is empty"},
      {"{\"item_id\": [1]}\n", "must be a string or an integer"},
      {"{\"item_id\": 1.5}\n", "must be a string or an integer"},
      {"{\"item_id\": \"a\"}\n{\"asin\": \"a\"}\n",
       "items.jsonl:2: the id 'a' is already that of line 1"},
      {"{\"id\": 2, \"item_id\": \"a\"}\n", "items.jsonl:1: id is 2"},
      {"{\"id\": 1.0, \"item_id\": \"a\"}\n", "items.jsonl:1: id is 1.0"},
      {"{\"item_id\": \"\xff\"}\n", "items.jsonl:1: not valid JSON"},
  };
  for (const auto& test : cases) {
    Write("items.jsonl", test.items);
    ExpectError(absl::StatusCode::kInvalidArgument, test.message);
  }
  Write("items.jsonl",
        "{\"id\": 1, \"item_id\": \"1\"}\n{\"id\": \"text is free\", \"item_id\": "
        "\"b\"}\n{\"item_id\":\"c\"}");
  EXPECT_TRUE(Load().ok());
}

TEST_F(DatasetTest, RefusesBadInteractionLinesAndNamesThem) {
  const struct {
    const char* interactions;
    const char* message;
  } cases[] = {
      {"ann 1 2\nbob 0\n", "interactions.txt:2: item number 0 of user 'bob' is outside 1..3"},
      {"ann 4\n", "item number 4 of user 'ann' is outside 1..3"},
      {"ann -1\n", "item number -1"},
      {"ann 99999999999999999999999\n", "is outside 1..3"},
      {"ann 1 2x\n", "'2x' is not an item number"},
      {"Ann Lee 1\n", "'Lee' is not an item number"},
      {"ann 1.0\n", "'1.0' is not an item number"},
      {"ann\n", "interactions.txt:1: user 'ann' has no items"},
      {"ann 1\nbob 2\n\nann 3\n", "interactions.txt:4: user 'ann' is already on line 1"},
  };
  for (const auto& test : cases) {
    Write("interactions.txt", test.interactions);
    ExpectError(absl::StatusCode::kInvalidArgument, test.message);
  }
}

TEST_F(DatasetTest, RefusesEmptyAndMissingParts) {
  Write("interactions.txt", " \n\r\n");
  ExpectError(absl::StatusCode::kFailedPrecondition, "interactions.txt has no users");
  Write("items.jsonl", "");
  ExpectError(absl::StatusCode::kFailedPrecondition, "items.jsonl describes no items");
  std::filesystem::remove(folder_ + "/items.jsonl");
  ExpectError(absl::StatusCode::kNotFound, "items.jsonl");
  EXPECT_EQ(Dataset::Load(folder_ + "/absent", {}).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(DatasetTest, RefusesFeaturesThatDoNotFit) {
  ExpectError(absl::StatusCode::kFailedPrecondition, "no features in", {}, true);
  ExpectError(absl::StatusCode::kNotFound, "it has none", {"text"}, true);
  WriteFeatures("text", 2, 4);
  ExpectError(absl::StatusCode::kInvalidArgument,
              "text.npy has 2 rows, but items.jsonl describes 3 items", {}, true);
  WriteFeatures("text", 3, 0);
  ExpectError(absl::StatusCode::kInvalidArgument, "text.npy has no columns", {}, true);
  WriteFeatures("text", 3, 4, std::numeric_limits<float>::quiet_NaN());
  ExpectError(absl::StatusCode::kInvalidArgument, "text.npy: row 0, column 0 is nan", {}, true);
  Write("features/text.npy", "not an array");
  ExpectError(absl::StatusCode::kInvalidArgument, "is not a .npy file", {}, true);
  EXPECT_TRUE(Load({}, false).ok());
}

TEST_F(DatasetTest, FingerprintFollowsInteractionsAndItemIds) {
  const auto first = Load();
  ASSERT_TRUE(first.ok());
  EXPECT_EQ((*first)->fingerprint.size(), 16u);
  Write("items.jsonl",
        "{\"item_id\": \"a\", \"title\": \"T\"}\n{\"item_id\": \"b c\"}\n{\"item_id\": \"7\"}\n");
  EXPECT_EQ((*Load())->fingerprint, (*first)->fingerprint);
  Write("items.jsonl", "{\"item_id\": \"ab\"}\n{\"item_id\": \" c\"}\n{\"item_id\": \"7\"}\n");
  EXPECT_NE((*Load())->fingerprint, (*first)->fingerprint);
  Write("items.jsonl", "{\"item_id\": \"a\"}\n{\"item_id\": \"b c\"}\n{\"item_id\": \"7\"}\n");
  Write("interactions.txt", "ann 1 2\nbob 3 3 3\n");
  EXPECT_NE((*Load())->fingerprint, (*first)->fingerprint);
}

// On real data, when there is some: NESTREC_DATA=<data folder>.
TEST(DatasetOnRealData, LoadsCompletely) {
  const char* folder = std::getenv("NESTREC_DATA");
  if (folder == nullptr || *folder == '\0') GTEST_SKIP() << "NESTREC_DATA is not set";
  const auto loaded = Dataset::Load(folder, {});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const Dataset& data = **loaded;
  RecordProperty("users", std::to_string(data.users()));
  std::vector<bool> seen(static_cast<size_t>(data.items()) + 1);
  for (const int32_t item : data.interactions) seen[static_cast<size_t>(item)] = true;
  EXPECT_GT(std::count(seen.begin(), seen.end(), true), data.items() * 9 / 10);
  printf("%s: %ld users, %ld items, %zu interactions, %zu modalities, fingerprint %s\n", folder,
         static_cast<long>(data.users()), static_cast<long>(data.items()), data.interactions.size(),
         data.modalities.size(), data.fingerprint.c_str());
}

}  // namespace
}  // namespace nestrec
