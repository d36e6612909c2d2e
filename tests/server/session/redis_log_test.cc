#include "server/session/redis_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/random.h"
#include "server/session/redis_record.h"
#include "server/session/session_manager.h"
#include "tests/server/session/redis_server.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

const absl::Time kTime = absl::FromUnixMillis(1'700'000'000'123);

std::vector<SessionEvent> Events(const std::vector<std::string>& items) {
  std::vector<SessionEvent> events;
  for (const std::string& item : items) events.push_back({item, kTime});
  return events;
}

std::vector<std::string> Items(const absl::StatusOr<SessionTail>& tail) {
  EXPECT_TRUE(tail.ok()) << tail.status();
  std::vector<std::string> items;
  if (!tail.ok()) return items;
  for (const SessionEvent& event : tail->events) items.push_back(event.item_id);
  return items;
}

TEST(RedisAddressTest, ReadsWhatPeopleWrite) {
  RedisAddress address = *RedisAddress::Parse("redis://localhost");
  EXPECT_EQ(address.ToString(), "localhost:6379");
  EXPECT_EQ(address.database, 0);
  address = *RedisAddress::Parse("redis://me@cache.example:7000/3");
  EXPECT_EQ(address.user, "me");
  EXPECT_EQ(address.ToString(), "cache.example:7000");
  EXPECT_EQ(address.database, 3);
  EXPECT_EQ(RedisAddress::Parse("redis://[::1]:7000/")->ToString(), "[::1]:7000");
  address = *RedisAddress::Parse("unix:///run/redis.sock?db=2");
  EXPECT_EQ(address.ToString(), "/run/redis.sock");
  EXPECT_EQ(address.database, 2);
}

TEST(RedisAddressTest, SaysWhatIsWrong) {
  const auto message = [](absl::string_view text) {
    const auto address = RedisAddress::Parse(text);
    EXPECT_EQ(address.status().code(), absl::StatusCode::kInvalidArgument) << text;
    return std::string(address.status().message());
  };
  EXPECT_THAT(message("localhost:6379"), HasSubstr("'localhost:6379' is no Redis address"));
  EXPECT_THAT(message("redis://"), HasSubstr("names no host"));
  EXPECT_THAT(message("redis://h:99999"), HasSubstr("port is not in 1 to 65535"));
  EXPECT_THAT(message("redis://h:0"), HasSubstr("port"));
  EXPECT_THAT(message("redis://h/x"), HasSubstr("database"));
  EXPECT_THAT(message("redis://[::1"), HasSubstr("not closed"));
  EXPECT_THAT(message("rediss://h"), HasSubstr("TLS"));
  EXPECT_THAT(message("unix://relative"), HasSubstr("absolute path"));
  EXPECT_THAT(message("unix:///s?x=1"), HasSubstr("db=<number>"));
  EXPECT_THAT(message("redis://u:secret@h"), HasSubstr("must not hold a password"));
  EXPECT_THAT(message("redis://u:secret@h"), Not(HasSubstr("secret")));
}

class RedisLogTest : public testing::Test {
 protected:
  void SetUp() override {
    if (RedisServer::Program().empty()) GTEST_SKIP() << RedisServer::kSkipReason;
    std::signal(SIGPIPE, SIG_IGN);
    const absl::Status started = redis_.Start();
    ASSERT_TRUE(started.ok()) << started;
  }

  std::unique_ptr<RedisSessionLog> Open(int64_t keep = 200,
                                        absl::Duration ttl = absl::ZeroDuration()) {
    return std::make_unique<RedisSessionLog>(RedisSessionLog::Options{
        .redis = {
            .address = *RedisAddress::Parse(redis_.url()),
            .password = [this] { return password_; },
            .timeout = timeout_,
            .clock = [this] { return now_.load(); },
            .log = Log([this](absl::string_view line) { logged_ += absl::StrCat(line, "\n"); })},
        .events_per_session = keep,
        .ttl = ttl});
  }

  void PassPause() { now_ = now_.load() + absl::ToChronoNanoseconds(absl::Seconds(10)); }

  // An answer of Redis, as an operator would ask for it.
  RedisValue Ask(const std::vector<std::string>& command) {
    auto connection =
        RedisConnection::Connect(*RedisAddress::Parse(redis_.url()), asks_with_, absl::Seconds(60));
    EXPECT_TRUE(connection.ok()) << connection.status();
    auto value = (*connection)->Command(command);
    EXPECT_TRUE(value.ok()) << value.status();
    return value.value_or(RedisValue());
  }

  TempFolder folder_;
  RedisServer redis_{folder_.path()};
  absl::Duration timeout_ = absl::Seconds(60);
  absl::StatusOr<std::string> password_ = std::string();
  std::string asks_with_;  // the password of Ask
  std::string logged_;     // by logs that one thread uses
  std::atomic<Instant> now_{Instant()};
};

TEST_F(RedisLogTest, KeepsTheNewestEventsInTheirOrder) {
  const auto log = Open(4);
  EXPECT_EQ(log->Read("u", 10)->session, 0u);
  const auto first = log->Append("u", Events({"a", "b"}), "1");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->end, 2);
  EXPECT_EQ(log->Append("u", Events({"c", "品目 d", "e"}), "2")->end, 5);
  ASSERT_TRUE(log->Append("v", Events({"x"}), "1").ok());
  const auto tail = log->Read("u", 1000);
  EXPECT_EQ(tail->session, first->session);
  EXPECT_EQ(tail->end, 5);
  EXPECT_THAT(Items(tail), ElementsAre("b", "c", "品目 d", "e"));
  EXPECT_EQ(tail->events[0].time, kTime);
  EXPECT_THAT(Items(log->Read("u", 2)), ElementsAre("品目 d", "e"));
  EXPECT_NE(log->Read("v", 1)->session, tail->session);
}

TEST_F(RedisLogTest, ARetriedCallCountsOnceOnAnyReplica) {
  const auto one = Open();
  const auto other = Open();
  EXPECT_FALSE(one->Append("u", Events({"a"}), "call")->duplicate);
  const auto again = other->Append("u", Events({"a"}), "call");
  EXPECT_TRUE(again->duplicate);
  EXPECT_EQ(again->end, 1);
  EXPECT_EQ(again->session, one->Read("u", 1)->session);
  for (size_t i = 0; i < SessionLog::kRememberedCalls - 1; ++i) {
    ASSERT_TRUE(other->Append("u", Events({"b"}), absl::StrCat("other ", i)).ok());
  }
  EXPECT_TRUE(one->Append("u", Events({"a"}), "call")->duplicate);
  ASSERT_TRUE(one->Append("u", Events({"b"}), "one more").ok());
  EXPECT_FALSE(one->Append("u", Events({"a"}), "call")->duplicate);
  EXPECT_FALSE(one->Append("u", Events({"a"}), "")->duplicate);
  EXPECT_FALSE(one->Append("u", Events({"a"}), "")->duplicate);
}

TEST_F(RedisLogTest, ForgetEndsASessionAndLeavesNoKey) {
  const auto log = Open();
  const std::string user = "odd {user} 100%}";
  const uint64_t before = log->Append(user, Events({"a"}), "call")->session;
  EXPECT_EQ(Ask({"DBSIZE"}).integer, 1);
  EXPECT_TRUE(*log->Forget(user));
  EXPECT_EQ(Ask({"DBSIZE"}).integer, 0);
  EXPECT_FALSE(*log->Forget(user));
  const auto again = log->Append(user, Events({"a"}), "call");
  EXPECT_FALSE(again->duplicate);
  EXPECT_EQ(again->end, 1);
  EXPECT_NE(again->session, before);
}

TEST_F(RedisLogTest, SessionsExpireInRedis) {
  const auto log = Open(10, absl::Hours(2));
  ASSERT_TRUE(log->Append("u", Events({"a"}), "call").ok());
  for (int i = 0; i < 2; ++i) {  // by the last event
    const int64_t left_ms = Ask({"PTTL", "nestrec:{u}:events"}).integer;
    EXPECT_GT(left_ms, 7'000'000);
    EXPECT_LE(left_ms, 7'200'000);
    Ask({"PEXPIRE", "nestrec:{u}:events", "60000"});
    ASSERT_TRUE(log->Append("u", Events({"a"}), "another call").ok());
    Ask({"PEXPIRE", "nestrec:{u}:events", "7100000"});
  }
  // Calls go with the events.
  Ask({"DEL", "nestrec:{u}:events"});
  EXPECT_FALSE(log->Append("u", Events({"a"}), "call")->duplicate);
}

TEST_F(RedisLogTest, ManyThreadsRecordEveryEventOnce) {
  const auto log = Open(1000);
  std::vector<std::thread> threads;
  // Fewer calls in all than a session remembers: none is forgotten, however threads take turns.
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 10; ++i) {
        const std::string call = absl::StrCat(t, ":", i);
        EXPECT_TRUE(log->Append("shared", Events({call}), call).ok());
        EXPECT_TRUE(log->Append("shared", Events({call}), call)->duplicate);
        EXPECT_TRUE(log->Read("shared", 3).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::map<std::string, int> next;
  const auto tail = log->Read("shared", 1000);
  EXPECT_EQ(tail->end, 60);
  for (const std::string& item : Items(tail)) {
    const std::string thread = item.substr(0, item.find(':'));
    EXPECT_EQ(item, absl::StrCat(thread, ":", next[thread]++));
  }
}

TEST_F(RedisLogTest, ARedisThatIsGoneIsSaidSoAndComesBack) {
  const auto log = Open();
  ASSERT_TRUE(log->Append("u", Events({"a"}), "1").ok());
  redis_.Stop();
  absl::Status status = log->Append("u", Events({"b"}), "2").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(redis_.socket()));
  // Nobody waits for it until the pause is over.
  status = log->Read("u", 10).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("a moment ago"));
  ASSERT_TRUE(redis_.Start().ok());
  EXPECT_FALSE(log->Read("u", 10).ok());
  now_ = now_.load() + absl::ToChronoNanoseconds(RedisPool::kFirstPause);
  EXPECT_THAT(Items(log->Read("u", 10)), ElementsAre("a"));
  EXPECT_FALSE(log->Append("u", Events({"b"}), "2")->duplicate);
  EXPECT_TRUE(log->Append("u", Events({"b"}), "2")->duplicate);
}

TEST_F(RedisLogTest, IdleConnectionsThatRedisClosedDoNotFailCalls) {
  const auto log = Open();
  ASSERT_TRUE(log->Append("u", Events({"a"}), "1").ok());
  redis_.Stop();
  ASSERT_TRUE(redis_.Start().ok());
  const auto appended = log->Append("u", Events({"b"}), "2");
  ASSERT_TRUE(appended.ok()) << appended.status();
  EXPECT_THAT(Items(log->Read("u", 10)), ElementsAre("a", "b"));
}

TEST_F(RedisLogTest, ASlowRedisCostsOneTimeoutAndThenNoTime) {
  timeout_ = absl::Milliseconds(400);
  const auto log = Open();
  ASSERT_TRUE(log->Append("u", Events({"a"}), "1").ok());
  redis_.Pause();
  absl::Status status = log->Append("u", Events({"b"}), "2").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("does not answer in time"));
  EXPECT_THAT(std::string(log->Append("u", Events({"b"}), "2").status().message()),
              HasSubstr("a moment ago"));
  redis_.Continue();
  timeout_ = absl::Seconds(60);
  const auto later = Open();
  // Whether the call that timed out was carried out is not known; a retry counts once either way.
  ASSERT_TRUE(later->Append("u", Events({"b"}), "2").ok());
  EXPECT_THAT(Items(later->Read("u", 10)), ElementsAre("a", "b"));
}

TEST_F(RedisLogTest, NamesKeysThatAreNotOurs) {
  const auto log = Open();
  const std::vector<std::vector<std::string>> foreign = {
      {"SET", "nestrec:{u}:events", "x"},
      {"SET", "nestrec:{u}:events", std::string(60, '\1')},
      {"RPUSH", "nestrec:{u}:events", "x"},
      {"XADD", "nestrec:{u}:events", "5-5", "a", "b"}};
  for (const std::vector<std::string>& command : foreign) {
    Ask({"DEL", "nestrec:{u}:events"});
    Ask(command);
    const absl::Status status = log->Read("u", 10).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("nestrec:{u}:events"));
  }
  Ask({"SET", "nestrec:{u}:events", absl::StrCat("\2", std::string(60, '\1'))});
  for (const absl::Status& status :
       {log->Read("u", 10).status(), log->Append("u", Events({"a"}), "1").status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("release"));
  }
  EXPECT_EQ(Ask({"STRLEN", "nestrec:{u}:events"}).integer, 61);  // and is left alone
}

// As the layout before wrote it.
TEST_F(RedisLogTest, StreamsOfAnOlderReleaseAreTakenOver) {
  const CallId call = HashCallId("old call");
  const auto write_old = [&] {
    Ask({"DEL", "nestrec:{u}:events"});
    for (int i = 7; i < 10; ++i) {
      Ask({"XADD", "nestrec:{u}:events", absl::StrCat("18446744073709551615-", i), "item",
           absl::StrCat("old ", i), "time", absl::StrCat(-1'000 * i)});
    }
    Ask({"ZADD", "nestrec:{u}:calls", "10", absl::StrFormat("%016x%016x", call[0], call[1])});
    Ask({"PEXPIRE", "nestrec:{u}:events", "3600000"});
    Ask({"PEXPIRE", "nestrec:{u}:calls", "3600000"});
  };
  const auto log = Open(4, absl::Hours(9));
  write_old();
  const auto tail = log->Read("u", 10);
  EXPECT_THAT(Items(tail), ElementsAre("old 7", "old 8", "old 9"));
  EXPECT_EQ(tail->end, 10);
  EXPECT_EQ(tail->events[2].time, absl::FromUnixMillis(-9'000));
  const int64_t left_ms = Ask({"PTTL", "nestrec:{u}:events"}).integer;
  EXPECT_GT(left_ms, 3'500'000);
  EXPECT_LE(left_ms, 3'600'000);
  EXPECT_EQ(Ask({"EXISTS", "nestrec:{u}:calls"}).integer, 0);
  EXPECT_EQ(log->Read("u", 10)->session, tail->session);

  write_old();
  EXPECT_TRUE(log->Append("u", Events({"old 9"}), "old call")->duplicate);
  write_old();
  const auto appended = log->Append("u", Events({"a", "b"}), "new call");
  ASSERT_TRUE(appended.ok()) << appended.status();
  EXPECT_EQ(appended->end, 12);
  EXPECT_THAT(Items(log->Read("u", 10)), ElementsAre("old 8", "old 9", "a", "b"));
  EXPECT_TRUE(log->Append("u", Events({"old 9"}), "old call")->duplicate);

  // Replicas that find it at the same time turn it once.
  write_old();
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] { EXPECT_EQ(Items(log->Read("u", 10)).size(), 3u); });
  }
  for (std::thread& thread : threads) thread.join();
}

// What docs/scaling.md reckons with, of ids with 10 bytes.
TEST_F(RedisLogTest, AUserTakesLittleMoreMemoryThanTheirEvents) {
  const auto log = Open();
  for (const bool many_calls : {false, true}) {
    for (const int count : {1, 50, 200}) {
      ASSERT_TRUE(log->Forget("user-0000000001").ok());
      for (int i = 0; i < (many_calls ? count : 1); ++i) {
        std::vector<std::string> items;
        for (int j = 0; j < (many_calls ? 1 : count); ++j) {
          items.push_back(absl::StrFormat("N%09d", 1000 * i + j));
        }
        ASSERT_TRUE(log->Append("user-0000000001", Events(items), absl::StrCat(i)).ok());
      }
      const int64_t bytes =
          Ask({"MEMORY", "USAGE", "nestrec:{user-0000000001}:events", "SAMPLES", "0"}).integer;
      const int64_t calls = many_calls ? std::min(count, 64) : 1;
      RecordProperty(absl::StrCat("bytes_", count, "_events_", calls, "_calls"),
                     absl::StrCat(bytes));
      // Key and value as Redis holds them, and what malloc rounds up.
      EXPECT_LE(bytes, 160 + (20 + 16 * calls + 20 * count) * 5 / 4) << count << " " << calls;
    }
  }
}

TEST_F(RedisLogTest, AnyCallsLeaveWhatAPlainListWouldHold) {
  Random random(3);
  const auto log = Open(7);
  std::vector<std::string> expected;
  int64_t end = 0;
  for (int call = 0; call < 300; ++call) {
    std::vector<std::string> items;
    // Longer than what is kept, too; ids of any bytes and of the greatest length.
    for (size_t i = random.Index(10) + 1; i > 0; --i) {
      std::string item(random.Index(20) == 0 ? 256 : random.Index(12), '\0');
      for (char& c : item) c = static_cast<char>(random.Index(256));
      items.push_back(item);
    }
    expected.insert(expected.end(), items.begin(), items.end());
    expected.erase(expected.begin(), expected.end() - std::min<int64_t>(7, std::ssize(expected)));
    end += std::ssize(items);
    const auto appended = log->Append("u", Events(items), absl::StrCat(call));
    ASSERT_TRUE(appended.ok()) << appended.status();
    ASSERT_EQ(appended->end, end);
    const auto tail = log->Read("u", 100);
    ASSERT_EQ(Items(tail), expected);
    ASSERT_EQ(tail->end, end);
    ASSERT_EQ(tail->session, appended->session);
  }
}

TEST_F(RedisLogTest, WrongPasswordsAreRefused) {
  Ask({"CONFIG", "SET", "requirepass", "right"});
  password_ = "right";
  EXPECT_TRUE(Open()->Ping().ok());
  EXPECT_EQ(logged_, "");
  for (const char* wrong : {"wrong", ""}) {
    password_ = wrong;
    const auto log = Open();
    logged_.clear();
    const absl::Status status = log->Read("u", 1).status();
    // Not kPermissionDenied: the caller is not to blame.
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("--redis-password-file"));
    EXPECT_THAT(logged_, HasSubstr("warning redis_refuses_login"));
    EXPECT_THAT(logged_, HasSubstr("--redis-password-file"));
  }
}

TEST_F(RedisLogTest, APasswordThatChangesInRedisFirstIsTakenUpFromTheFile) {
  const auto log = Open();
  ASSERT_TRUE(log->Append("u", Events({"a"}), "1").ok());
  Ask({"CONFIG", "SET", "requirepass", "new"});
  // The connection that there is stays good.
  EXPECT_THAT(Items(log->Read("u", 10)), ElementsAre("a"));
  asks_with_ = "new";
  Ask({"CLIENT", "KILL", "TYPE", "normal"});
  EXPECT_TRUE(absl::IsUnavailable(log->Read("u", 10).status()));
  PassPause();
  EXPECT_TRUE(absl::IsUnavailable(log->Append("u", Events({"b"}), "2").status()));
  password_ = "new";
  PassPause();
  EXPECT_FALSE(log->Append("u", Events({"b"}), "2")->duplicate);
  EXPECT_THAT(Items(log->Read("u", 10)), ElementsAre("a", "b"));
  EXPECT_THAT(logged_, HasSubstr("info redis_answers"));
}

TEST_F(RedisLogTest, APasswordThatChangesInTheFileFirstCostsNoCall) {
  Ask({"CONFIG", "SET", "requirepass", "old"});
  password_ = asks_with_ = "old";
  const auto log = Open();
  ASSERT_TRUE(log->Append("u", Events({"a"}), "1").ok());
  for (const absl::StatusOr<std::string>& in_file :
       std::vector<absl::StatusOr<std::string>>{"new", absl::InvalidArgumentError("is empty")}) {
    password_ = in_file;
    Ask({"CLIENT", "KILL", "TYPE", "normal"});
    EXPECT_THAT(Items(log->Read("u", 10)), ElementsAre("a"));
  }
  EXPECT_THAT(logged_, HasSubstr("warning redis_former_password"));
  EXPECT_THAT(logged_, HasSubstr("WRONGPASS"));
  logged_.clear();
  PassPause();
  password_ = "new";
  Ask({"CONFIG", "SET", "requirepass", "new"});
  asks_with_ = "new";
  Ask({"CLIENT", "KILL", "TYPE", "normal"});
  EXPECT_THAT(Items(log->Read("u", 10)), ElementsAre("a"));
  EXPECT_EQ(logged_, "");
}

TEST_F(RedisLogTest, ALoginThatIsTakenAwayIsAskedForAgain) {
  const auto log = Open();
  ASSERT_TRUE(log->Append("u", Events({"a"}), "1").ok());
  // The connection stays, and may do nothing any more.
  Ask({"ACL", "SETUSER", "admin", "on", "nopass", "allkeys", "allcommands"});
  Ask({"ACL", "SETUSER", "default", "-get"});
  absl::Status status = log->Read("u", 10).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("NOPERM"));
  EXPECT_THAT(logged_, HasSubstr("redis_refuses_login"));
  Ask({"ACL", "SETUSER", "default", "+get"});
  PassPause();
  EXPECT_THAT(Items(log->Read("u", 10)), ElementsAre("a"));
}

TEST_F(RedisLogTest, ARedisThatRefusesEveryCallIsLoggedOnceInAWhile) {
  const auto log = Open();
  redis_.Stop();
  for (int i = 0; i < 50; ++i) {
    EXPECT_FALSE(log->Read("u", 10).ok());
    now_ = now_.load() + absl::ToChronoNanoseconds(absl::Milliseconds(1));
  }
  EXPECT_THAT(logged_, HasSubstr("warning redis_unavailable"));
  EXPECT_EQ(std::count(logged_.begin(), logged_.end(), '\n'), 1) << logged_;
}

TEST_F(RedisLogTest, AnyReplicaServesTheUserNext) {
  const RandomModel model({.sizes = {8, 16}, .max_len = 10});
  const auto encoder = *Encoder::Create(model.view(), nullptr);
  const auto stepper = *Stepper::Create(encoder.get());
  const SessionModel view{.encoder = encoder.get(), .stepper = stepper.get(), .version = 1};
  SessionManager one(Open(), 1 << 20), other(Open(), 1 << 20);
  Random random(1);
  std::vector<int32_t> recorded;
  for (int step = 0; step < 30; ++step) {
    const auto item = static_cast<int32_t>(1 + random.Index(100));
    recorded.push_back(item);
    ASSERT_TRUE((step % 3 == 0 ? one : other)
                    .Record("u", Events({RandomModelItemId(item)}), absl::StrCat(step))
                    .ok());
    SessionManager& replica = random.Index(2) == 0 ? one : other;
    const auto history = replica.Read("u", model.catalogue());
    ASSERT_TRUE(history.ok()) << history.status();
    const SessionQuery query{.history = &*history, .more = {}, .levels = 2};
    SessionAnswer answer;
    ASSERT_TRUE(replica.Encode(view, {&query, 1}, {&answer, 1}).ok());
    const History window = History(recorded).last(std::min<size_t>(recorded.size(), 10));
    std::vector<float> expected(16);
    ASSERT_TRUE(encoder->Encode({&window, 1}, 2, expected).ok());
    EXPECT_THAT(answer.z, testing::Pointwise(testing::FloatNear(1e-4f), expected));
  }
}

}  // namespace
}  // namespace nestrec
