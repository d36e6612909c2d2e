#include "server/live/item_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::StoredItems Items(const std::vector<std::string>& ids) {
  v1::StoredItems items;
  for (const std::string& id : ids) {
    v1::StoredItem& item = *items.add_items();
    item.set_item_id(id);
    item.set_record(absl::StrCat(R"({"title": ")", id, R"("})"));
    item.add_features()->add_values(1.5f);
  }
  return items;
}

class ItemLogTest : public testing::Test {
 protected:
  struct Opened {
    std::unique_ptr<ItemLog> log;
    std::vector<std::string> ids;
    uint64_t dropped_bytes = 0;
  };
  absl::StatusOr<Opened> Open() {
    Opened result;
    auto opened = ItemLog::Open(folder_.path(), [&](v1::StoredItem item) {
      result.ids.push_back(item.item_id());
      return absl::OkStatus();
    });
    if (!opened.ok()) return opened.status();
    result.log = std::move(opened->log);
    result.dropped_bytes = opened->dropped_bytes;
    return result;
  }
  std::string path() const { return folder_.File("items.log"); }
  void Write(const std::string& bytes) const {
    std::ofstream(path(), std::ios::binary | std::ios::trunc) << bytes;
  }

  TempFolder folder_;
};

TEST_F(ItemLogTest, GivesBackWhatWasAppendedInOrder) {
  {
    auto opened = Open();
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_TRUE(opened->ids.empty());
    ASSERT_TRUE(opened->log->Append(Items({"a", "b"})).ok());
    ASSERT_TRUE(opened->log->Append(Items({"c"})).ok());
  }
  auto again = Open();
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_THAT(again->ids, ElementsAre("a", "b", "c"));
  EXPECT_EQ(again->dropped_bytes, 0u);
  EXPECT_EQ(again->log->size_bytes(), std::filesystem::file_size(path()));
}

TEST_F(ItemLogTest, ACallThatWasCutAnywhereLeavesNoTraceAndTheOthersStay) {
  std::string whole;
  uint64_t first = 0;
  {
    auto opened = Open();
    ASSERT_TRUE(opened.ok());
    ASSERT_TRUE(opened->log->Append(Items({"a"})).ok());
    first = opened->log->size_bytes();
    ASSERT_TRUE(opened->log->Append(Items({"b", "c"})).ok());
    whole = *ReadFile(path());
  }
  for (size_t size = first; size < whole.size(); ++size) {
    Write(whole.substr(0, size));
    auto opened = Open();
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_THAT(opened->ids, ElementsAre("a"));
    EXPECT_EQ(opened->dropped_bytes, size - first);
    ASSERT_TRUE(opened->log->Append(Items({"d"})).ok());
    opened->log.reset();
    EXPECT_THAT(Open()->ids, ElementsAre("a", "d"));
  }
}

TEST_F(ItemLogTest, DamageInTheMiddleIsNamedAndNothingIsCutOff) {
  uint64_t first = 0;
  {
    auto opened = Open();
    ASSERT_TRUE(opened.ok());
    first = opened->log->size_bytes();
    ASSERT_TRUE(opened->log->Append(Items({"a"})).ok());
    ASSERT_TRUE(opened->log->Append(Items({"b"})).ok());
  }
  const std::string whole = *ReadFile(path());
  std::string damaged = whole;
  damaged[first + 20] = static_cast<char>(damaged[first + 20] ^ 1);
  Write(damaged);
  const absl::Status status = Open().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(status.message(), HasSubstr(absl::StrCat("is damaged at byte ", first)));
  EXPECT_EQ(*ReadFile(path()), damaged);
  Write("something else entirely");
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kDataLoss);
  std::string other_version = whole;
  other_version[8] = 2;
  Write(other_version);
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ItemLogTest, IsForOneProcess) {
  const auto opened = Open();
  ASSERT_TRUE(opened.ok());
  const absl::Status second = Open().status();
  EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(second.message(), HasSubstr("another server keeps its items here"));
}

TEST_F(ItemLogTest, IsWrittenAnewAndGoesOn) {
  const v1::StoredItems kept = Items({"x", "y", "z"});
  {
    auto opened = Open();
    ASSERT_TRUE(opened.ok());
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(opened->log->Append(Items({"x", "y"})).ok());
    const uint64_t before = opened->log->size_bytes();
    int next = 0;
    ASSERT_TRUE(opened->log
                    ->Rewrite([&]() -> const v1::StoredItem* {
                      return next < kept.items_size() ? &kept.items(next++) : nullptr;
                    })
                    .ok());
    EXPECT_LT(opened->log->size_bytes(), before / 10);
    ASSERT_TRUE(opened->log->Append(Items({"w"})).ok());
  }
  EXPECT_THAT(Open()->ids, ElementsAre("x", "y", "z", "w"));
}

}  // namespace
}  // namespace nestrec
