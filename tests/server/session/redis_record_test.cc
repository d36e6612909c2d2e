#include "server/session/redis_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "base/random.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

// As docs/session_log_format.md has it: a session 0x0102030405060708 that ever had 513 events, two
// calls remembered, two events kept.
std::string Example() {
  std::string value("\x01\x08\x07\x06\x05\x04\x03\x02\x01\x01\x02\0\0\0\0\0\0\x02\x02\0", 20);
  value += PackCallId({0x1112131415161718, 0x191a1b1c1d1e1f10}) + std::string(16, 'c');
  value += PackSessionEvents(std::vector<SessionEvent>{{"a", absl::FromUnixMillis(-1)},
                                                       {"bc", absl::FromUnixMillis(1'000)}});
  return value;
}

TEST(RedisRecordTest, BytesAreThoseOfTheFormatPage) {
  EXPECT_EQ(PackSessionNumber(0x0102030405060708), "\x08\x07\x06\x05\x04\x03\x02\x01");
  EXPECT_EQ(PackCallId({0x1112131415161718, 0x191a1b1c1d1e1f10}),
            "\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x10");
  EXPECT_EQ(PackSessionEvents(std::vector<SessionEvent>{{"a", absl::FromUnixMillis(-1)}}),
            std::string("\x09\0\xff\xff\xff\xff\xff\xff\xff\xff"
                        "a",
                        11));
  const auto tail = ParseRedisRecord(Example(), 10);
  ASSERT_TRUE(tail.ok()) << tail.status();
  EXPECT_EQ(tail->session, 0x0102030405060708u);
  EXPECT_EQ(tail->end, 513);
  ASSERT_EQ(tail->events.size(), 2u);
  EXPECT_EQ(tail->events[0], (SessionEvent{"a", absl::FromUnixMillis(-1)}));
  EXPECT_EQ(tail->events[1], (SessionEvent{"bc", absl::FromUnixMillis(1'000)}));
  EXPECT_EQ(ParseRedisRecord(Example(), 1)->events.front().item_id, "bc");
}

TEST(RedisRecordTest, RefusesEveryCutAndWhatFollows) {
  const std::string whole = Example();
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(ParseRedisRecord(absl::string_view(whole).substr(0, size), 10).ok()) << size;
  }
  EXPECT_FALSE(ParseRedisRecord(whole + "x", 10).ok());
}

TEST(RedisRecordTest, NamesAVersionThatItDoesNotKnow) {
  std::string newer = Example();
  newer[0] = 2;
  const absl::Status status = ParseRedisRecord(newer, 10).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("format version 2"));
}

TEST(RedisRecordTest, AnyBytesAreReadOrRefused) {
  Random random(5);
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = Example();
    for (size_t flips = random.Index(4) + 1; flips > 0; --flips) {
      bytes[random.Index(bytes.size())] = static_cast<char>(random.Index(256));
    }
    const auto tail = ParseRedisRecord(bytes, 10);
    if (tail.ok()) {
      EXPECT_LE(tail->events.size(), 10u);
    }
  }
}

}  // namespace
}  // namespace nestrec
