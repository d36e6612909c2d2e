#include "server/recent_requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;

class RecentRequestsTest : public ::testing::Test {
 protected:
  static Catalogue MakeCatalogue() {
    std::vector<std::string> ids, records;
    for (int i = 1; i <= 9; ++i) {
      ids.push_back(absl::StrCat("item ", i));
      records.emplace_back("{}");
    }
    return *Catalogue::Create(ids, records);
  }
  void Add(const std::vector<int32_t>& history, int dim = 8, int most = 3) {
    recent_.Add(history, most, dim, ItemView(catalogue_), now_);
  }
  void Wait(absl::Duration time) { now_ += absl::ToChronoNanoseconds(time); }

  const Catalogue catalogue_ = MakeCatalogue();
  RecentRequests recent_;
  Instant now_;
};

TEST_F(RecentRequestsTest, KeepsTheLastItemsOfAHistoryByTheirIds) {
  Add({1, 2, 0, 9}, 16);
  ASSERT_EQ(recent_.Get().size(), 1u);
  EXPECT_THAT(recent_.Get()[0].item_ids, ElementsAre("item 2", "item 9"));
  EXPECT_EQ(recent_.Get()[0].dim, 16);
}

TEST_F(RecentRequestsTest, KeepsOneInATimeAndTheLatestOfAll) {
  for (int i = 0; i < 10; ++i) Add({1});
  EXPECT_EQ(recent_.Get().size(), 1u);
  for (int i = 0; i < 100; ++i) {
    Wait(RecentRequests::kEvery);
    Add({}, i);
  }
  EXPECT_EQ(recent_.Get().size(), RecentRequests::kKept);
  EXPECT_EQ(recent_.Get().front().dim, 36);
  EXPECT_EQ(recent_.Get().back().dim, 99);
}

}  // namespace
}  // namespace nestrec
