#include "model/prepare/core_filter.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "gtest/gtest.h"
#include "model/prepare/event_log.h"

namespace nestrec {
namespace {

using Key = std::tuple<int32_t, int32_t, int64_t>;

std::vector<Key> Keys(const std::vector<Event>& events) {
  std::vector<Key> keys;
  for (const Event& event : events) keys.emplace_back(event.user, event.item, event.time.whole);
  return keys;
}

std::vector<Event> RandomEvents(Random& random, int64_t count, int64_t users, int64_t items,
                                int64_t times) {
  std::vector<Event> events;
  for (int64_t i = 0; i < count; ++i) {
    events.push_back(
        {.user = static_cast<int32_t>(random.Index(users)),
         .item = static_cast<int32_t>(std::min(random.Index(items), random.Index(items))),
         .time = {.whole = random.Index(times), .nanos = 0}});
  }
  return events;
}

// Removes the events of one user or item below k at a time, chosen at random, until none is left:
// the order must not matter.
std::vector<Event> NaiveCore(std::vector<Event> events, int64_t k, Random& random) {
  while (true) {
    std::map<int32_t, int64_t> users, items;
    for (const Event& event : events) {
      ++users[event.user];
      ++items[event.item];
    }
    std::vector<std::pair<bool, int32_t>> weak;
    for (const auto& [user, count] : users) {
      if (count < k) weak.emplace_back(true, user);
    }
    for (const auto& [item, count] : items) {
      if (count < k) weak.emplace_back(false, item);
    }
    if (weak.empty()) return events;
    const auto [is_user, number] =
        weak[static_cast<size_t>(random.Index(static_cast<int64_t>(weak.size())))];
    std::erase_if(
        events, [&](const Event& event) { return (is_user ? event.user : event.item) == number; });
  }
}

TEST(KeepCore, EqualsTheNaiveCoreInAnyOrderOfRemoval) {
  Random random(17);
  int kept_something = 0;
  for (int round = 0; round < 300; ++round) {
    const int64_t users = 1 + random.Index(25);
    const int64_t items = 1 + random.Index(25);
    const int64_t k = random.Index(6);
    std::vector<Event> events = RandomEvents(random, random.Index(200), users, items, 10);
    const std::vector<Event> expected = NaiveCore(events, k, random);
    KeepCore(events, users, items, k);
    ASSERT_EQ(Keys(events), Keys(expected))
        << "users " << users << " items " << items << " k " << k;
    kept_something += !events.empty() && k > 1;
  }
  EXPECT_GT(kept_something, 50);
}

// No larger part of the log qualifies: every subset of events in which all users and items have k
// lies in the core.
TEST(KeepCore, IsTheLargestPartOfSmallLogs) {
  Random random(23);
  for (int round = 0; round < 60; ++round) {
    const std::vector<Event> all = RandomEvents(random, 10, 3, 3, 100);
    std::vector<Event> core = all;
    KeepCore(core, 3, 3, 2);
    size_t largest = 0;
    for (uint32_t subset = 0; subset < 1U << all.size(); ++subset) {
      std::map<int32_t, int> users, items;
      for (size_t i = 0; i < all.size(); ++i) {
        if ((subset >> i & 1) == 0) continue;
        ++users[all[i].user];
        ++items[all[i].item];
      }
      const auto strong = [](const auto& entry) { return entry.second >= 2; };
      if (std::all_of(users.begin(), users.end(), strong) &&
          std::all_of(items.begin(), items.end(), strong)) {
        largest = std::max(largest, static_cast<size_t>(__builtin_popcount(subset)));
      }
    }
    ASSERT_EQ(core.size(), largest);
  }
}

TEST(KeepCore, RemovesNothingBelowTwo) {
  std::vector<Event> events = {{0, 0, {1, 0}}, {1, 1, {2, 0}}};
  EXPECT_EQ(KeepCore(events, 2, 2, 1), 0);
  EXPECT_EQ(KeepCore(events, 2, 2, 0), 0);
  EXPECT_EQ(events.size(), 2u);
  EXPECT_EQ(KeepCore(events, 2, 2, 2), 1);
  EXPECT_TRUE(events.empty());
}

TEST(EventLog, SortsByUserAndTimeAndKeepsTiesInOrder) {
  Random random(29);
  std::vector<Event> events = RandomEvents(random, 3000, 20, 1, 5);
  for (size_t i = 0; i < events.size(); ++i)
    events[i].item = static_cast<int32_t>(i);  // its place in the log
  SortByUserAndTime(events);
  for (size_t i = 1; i < events.size(); ++i) {
    const auto key = [](const Event& e) {
      return std::tuple(e.user, e.time.whole, e.time.nanos, e.item);
    };
    ASSERT_LT(key(events[i - 1]), key(events[i]));
  }
}

TEST(EventLog, DropsExactDuplicatesOnly) {
  Random random(31);
  for (int round = 0; round < 100; ++round) {
    std::vector<Event> events = RandomEvents(random, 120, 4, 5, 6);
    SortByUserAndTime(events);
    std::vector<Key> expected;
    std::set<Key> seen;
    for (const Key& key : Keys(events)) {
      if (seen.insert(key).second) expected.push_back(key);
    }
    const int64_t dropped = DropDuplicates(events);
    ASSERT_EQ(Keys(events), expected);
    ASSERT_EQ(dropped, 120 - static_cast<int64_t>(expected.size()));
  }
}

TEST(EventLog, RepeatsKeepTheFirstOrTheLast) {
  const std::vector<Event> log = {{0, 7, {1, 0}}, {0, 8, {2, 0}}, {0, 7, {3, 0}}, {1, 7, {1, 0}}};
  std::vector<Event> events = log;
  EXPECT_EQ(DropRepeats(events, Repeats::kKeep), 0);
  EXPECT_EQ(Keys(events), Keys(log));
  EXPECT_EQ(DropRepeats(events, Repeats::kFirst), 1);
  EXPECT_EQ(Keys(events), (std::vector<Key>{{0, 7, 1}, {0, 8, 2}, {1, 7, 1}}));
  events = log;
  EXPECT_EQ(DropRepeats(events, Repeats::kLast), 1);
  EXPECT_EQ(Keys(events), (std::vector<Key>{{0, 8, 2}, {0, 7, 3}, {1, 7, 1}}));
}

TEST(IdTable, NumbersIdsByFirstAppearance) {
  IdTable table;
  for (int i = 0; i < 5000; ++i) EXPECT_EQ(table.Add(absl::StrCat("id ", i)), i);
  EXPECT_EQ(table.Add("id 17"), 17);
  EXPECT_EQ(table.Find("id 4999"), 4999);
  EXPECT_EQ(table.Find("other"), -1);
  EXPECT_EQ(table.id(0), "id 0");
  EXPECT_EQ(table.size(), 5000);
}

}  // namespace
}  // namespace nestrec
