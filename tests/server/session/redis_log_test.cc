#include "server/session/redis_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "base/random.h"
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
        .address = *RedisAddress::Parse(redis_.url()),
        .password = [this] { return password_; },
        .events_per_session = keep,
        .ttl = ttl,
        .timeout = timeout_,
        .clock = [this] { return now_.load(); },
        .log = Log([this](absl::string_view line) { logged_ += absl::StrCat(line, "\n"); })});
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
  EXPECT_EQ(Ask({"DBSIZE"}).integer, 2);
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
  for (const char* key : {"nestrec:{u}:events", "nestrec:{u}:calls"}) {
    const int64_t left_ms = Ask({"PTTL", key}).integer;
    EXPECT_GT(left_ms, 7'000'000) << key;
    EXPECT_LE(left_ms, 7'200'000) << key;
  }
  // An expired stream takes the calls with it.
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
  now_ = now_.load() + absl::ToChronoNanoseconds(RedisSessionLog::kFirstPause);
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
  Ask({"SET", "nestrec:{u}:events", "x"});
  absl::Status status = log->Read("u", 10).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("WRONGTYPE"));
  Ask({"DEL", "nestrec:{u}:events"});
  Ask({"XADD", "nestrec:{u}:events", "5-5", "a", "b"});
  status = log->Read("u", 10).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("nestrec:{u}:events"));
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
  Ask({"ACL", "SETUSER", "default", "-xrevrange"});
  absl::Status status = log->Read("u", 10).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("NOPERM"));
  EXPECT_THAT(logged_, HasSubstr("redis_refuses_login"));
  Ask({"ACL", "SETUSER", "default", "+xrevrange"});
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
