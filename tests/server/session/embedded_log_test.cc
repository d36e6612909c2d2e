#include "server/session/embedded_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/random.h"
#include "tests/testing/full_disk.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const absl::Time kTime = absl::FromUnixMillis(1'700'000'000'123);

std::vector<SessionEvent> Events(const std::vector<std::string>& items) {
  std::vector<SessionEvent> events;
  for (const std::string& item : items) events.push_back({item, kTime});
  return events;
}

std::vector<std::string> Items(const SessionTail& tail) {
  std::vector<std::string> items;
  for (const SessionEvent& event : tail.events) items.push_back(event.item_id);
  return items;
}

class EmbeddedLogTest : public testing::Test {
 protected:
  EmbeddedLogTest() {
    options_.folder = folder_.File("sessions");
    options_.clock = [this] { return Instant(std::chrono::milliseconds(steady_ms_)); };
    options_.wall_clock = [this] { return absl::FromUnixMillis(wall_ms_); };
    options_.log = Log([this](absl::string_view line) {
      const MutexLock lock(lines_mutex_);
      absl::StrAppend(&lines_, line, "\n");
    });
  }

  void Open() {
    log_.reset();
    auto log = EmbeddedSessionLog::Open(options_);
    ASSERT_TRUE(log.ok()) << log.status();
    log_ = *std::move(log);
  }
  // As after a kill: what the process did not hand over is lost, and nothing is done at the end.
  void Reopen() { Open(); }

  SessionAppended Append(const std::string& user, const std::vector<std::string>& items,
                         const std::string& call = "") {
    const auto appended = log_->Append(user, Events(items), call);
    EXPECT_TRUE(appended.ok()) << appended.status();
    return appended.value_or(SessionAppended());
  }
  SessionTail Read(const std::string& user, int64_t limit = 1000) {
    const auto tail = log_->Read(user, limit);
    EXPECT_TRUE(tail.ok()) << tail.status();
    return tail.value_or(SessionTail());
  }
  void Advance(absl::Duration duration) {
    steady_ms_ += absl::ToInt64Milliseconds(duration);
    wall_ms_ += absl::ToInt64Milliseconds(duration);
  }
  std::string AllBytes() const {
    std::string all;
    for (const auto& entry : std::filesystem::directory_iterator(options_.folder)) {
      all += ReadFile(entry.path().string()).value_or("");
    }
    return all;
  }

  TempFolder folder_;
  std::atomic<int64_t> steady_ms_{5'000'000};
  std::atomic<int64_t> wall_ms_{1'700'000'000'000};
  Mutex lines_mutex_;
  std::string lines_ ABSL_GUARDED_BY(lines_mutex_);
  EmbeddedSessionLog::Options options_;
  std::unique_ptr<EmbeddedSessionLog> log_;
};

TEST_F(EmbeddedLogTest, KeepsTheNewestEventsInTheirOrder) {
  options_.events_per_session = 4;
  Open();
  EXPECT_EQ(Read("u").session, 0u);
  const SessionAppended first = Append("u", {"a", "b"});
  EXPECT_EQ(first.end, 2);
  EXPECT_EQ(Append("u", {"c", "d", "e"}).end, 5);
  Append("v", {"x"});
  const SessionTail tail = Read("u");
  EXPECT_EQ(tail.session, first.session);
  EXPECT_EQ(tail.end, 5);
  EXPECT_THAT(Items(tail), ElementsAre("b", "c", "d", "e"));
  EXPECT_EQ(tail.events[0].time, kTime);
  EXPECT_THAT(Items(Read("u", 2)), ElementsAre("d", "e"));
  EXPECT_THAT(Items(Read("v")), ElementsAre("x"));
  EXPECT_NE(Read("v").session, tail.session);
}

TEST_F(EmbeddedLogTest, ARetriedCallCountsOnce) {
  Open();
  EXPECT_FALSE(Append("u", {"a"}, "call").duplicate);
  const SessionAppended again = Append("u", {"a"}, "call");
  EXPECT_TRUE(again.duplicate);
  EXPECT_EQ(again.end, 1);
  EXPECT_FALSE(Append("v", {"a"}, "call").duplicate);  // another session's
  Reopen();
  EXPECT_TRUE(Append("u", {"a"}, "call").duplicate);
  ASSERT_TRUE(log_->Compact().ok());
  Reopen();
  EXPECT_TRUE(Append("u", {"a"}, "call").duplicate);
  for (size_t i = 0; i < SessionLog::kRememberedCalls - 1; ++i) {
    Append("u", {"b"}, absl::StrCat("other ", i));
  }
  EXPECT_TRUE(Append("u", {"a"}, "call").duplicate);
  Append("u", {"b"}, "one more");
  EXPECT_FALSE(Append("u", {"a"}, "call").duplicate);
}

TEST_F(EmbeddedLogTest, ARetryBesideItsFirstCallCountsOnce) {
  Open();
  std::vector<std::thread> threads;
  std::atomic<int> counted{0};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] { counted += Append("u", {"a", "b"}, "call").duplicate ? 0 : 1; });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counted, 1);
  EXPECT_THAT(Items(Read("u")), ElementsAre("a", "b"));
}

// Random calls against a plain map; the log is closed, cut and compacted in between.
TEST_F(EmbeddedLogTest, RemembersWhatAMapWouldThroughReopeningAndSnapshots) {
  struct Expected {
    int64_t end = 0;
    std::vector<std::string> items;
  };
  options_.events_per_session = 6;
  Random random(3);
  std::map<std::string, Expected> expected;
  Open();
  for (int step = 0; step < 400; ++step) {
    const std::string user = absl::StrCat("user ", random.Index(12));
    const int64_t kind = random.Index(100);
    if (kind < 80) {
      std::vector<std::string> items;
      for (int64_t i = 0; i <= random.Index(9); ++i) items.push_back(absl::StrCat(step, "-", i));
      Expected& session = expected[user];
      session.end += static_cast<int64_t>(items.size());
      session.items.insert(session.items.end(), items.begin(), items.end());
      if (session.items.size() > 6) {
        session.items.erase(session.items.begin(), session.items.end() - 6);
      }
      EXPECT_EQ(Append(user, items).end, session.end);
    } else if (kind < 90) {
      EXPECT_EQ(*log_->Forget(user), expected.erase(user) == 1);
    } else if (kind < 95) {
      Reopen();
    } else {
      ASSERT_TRUE(log_->Compact().ok());
    }
    const SessionTail tail = Read(user);
    EXPECT_EQ(tail.end, expected[user].end);
    EXPECT_EQ(Items(tail), expected[user].items);
    if (expected[user].end == 0) expected.erase(user);
  }
  Reopen();
  EXPECT_EQ(log_->stats().sessions, static_cast<int64_t>(expected.size()));
}

TEST_F(EmbeddedLogTest, RecordsOfManyThreadsAreAllThereInEveryThreadsOrder) {
  constexpr int kThreads = 6;
  constexpr int kCalls = 150;
  options_.events_per_session = 1000;
  options_.compact_bytes = 8192;  // snapshots happen meanwhile
  Open();
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kCalls; ++i) {
        Append(absl::StrCat("own ", t), {absl::StrCat(i)});
        Append("shared", {absl::StrCat(t, ":", i)});
        Read("shared", 5);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  Reopen();
  for (int t = 0; t < kThreads; ++t) {
    const std::vector<std::string> own = Items(Read(absl::StrCat("own ", t)));
    ASSERT_EQ(own.size(), static_cast<size_t>(kCalls));
    for (int i = 0; i < kCalls; ++i) EXPECT_EQ(own[static_cast<size_t>(i)], absl::StrCat(i));
  }
  const SessionTail shared = Read("shared");
  EXPECT_EQ(shared.end, kThreads * kCalls);
  std::map<std::string, int> next;
  for (const std::string& item : Items(shared)) {
    const std::string thread = item.substr(0, item.find(':'));
    EXPECT_EQ(item, absl::StrCat(thread, ":", next[thread]++));
  }
}

TEST_F(EmbeddedLogTest, SnapshotsTakeThePlaceOfFilesAndTheirRemains) {
  Open();
  for (int i = 0; i < 50; ++i) Append("u", {absl::StrCat("item ", i)});
  ASSERT_TRUE(WriteFileAtomically(options_.folder + "/snapshot-000000000002.tmp.abc", "x").ok());
  ASSERT_TRUE(log_->Compact().ok());
  ASSERT_TRUE(log_->Compact().ok());
  auto files = ListSessionFiles(options_.folder);
  EXPECT_THAT(files->events, ElementsAre(3));
  EXPECT_THAT(files->snapshots, ElementsAre(3));
  Reopen();
  EXPECT_EQ(Read("u").end, 50);
  EXPECT_FALSE(FileExists(options_.folder + "/snapshot-000000000002.tmp.abc"));
}

TEST_F(EmbeddedLogTest, ASnapshotIsMadeWhenTheFilesGrow) {
  options_.compact_bytes = 4096;
  Open();
  const std::string first = SessionFilePath(options_.folder, SessionFileKind::kEvents, 1);
  // The background thread removes the first file; there is nothing to wait for but itself.
  for (int i = 0; i < 100'000 && FileExists(first); ++i) Append("u", {absl::StrCat("item ", i)});
  EXPECT_FALSE(FileExists(first));
  const int64_t end = Read("u").end;
  Reopen();
  EXPECT_EQ(Read("u").end, end);
}

TEST_F(EmbeddedLogTest, AnUnfinishedLastWriteIsCutOffAndRecordingGoesOn) {
  Open();
  Append("u", {"a"}, "1");
  Append("u", {"b"}, "2");
  log_.reset();
  const std::string path = SessionFilePath(options_.folder, SessionFileKind::kEvents, 1);
  const std::string bytes = *ReadFile(path);
  ASSERT_TRUE(WriteFileAtomically(path, bytes.substr(0, bytes.size() - 3)).ok());
  Reopen();
  EXPECT_THAT(Items(Read("u")), ElementsAre("a"));
  EXPECT_THAT(lines_, HasSubstr("session_log_cut"));
  EXPECT_FALSE(Append("u", {"b"}, "2").duplicate);
  Append("u", {"c"});
  Reopen();
  EXPECT_THAT(Items(Read("u")), ElementsAre("a", "b", "c"));
}

TEST_F(EmbeddedLogTest, AnUnfinishedWriteBeforeAnEmptyFileIsFollowedByASnapshot) {
  Open();
  Append("u", {"a"});
  Append("u", {"b"});
  log_.reset();
  const std::string path = SessionFilePath(options_.folder, SessionFileKind::kEvents, 1);
  const std::string bytes = *ReadFile(path);
  ASSERT_TRUE(WriteFileAtomically(path, bytes.substr(0, bytes.size() - 3)).ok());
  ASSERT_TRUE(EventFile::Create(options_.folder, 2).ok());
  Reopen();
  Append("u", {"c"});
  Reopen();
  EXPECT_THAT(Items(Read("u")), ElementsAre("a", "c"));
}

TEST_F(EmbeddedLogTest, RefusesDamageInTheMiddleAndMissingFiles) {
  Open();
  for (int i = 0; i < 20; ++i) Append("u", {absl::StrCat("item ", i)});
  log_.reset();
  const std::string path = SessionFilePath(options_.folder, SessionFileKind::kEvents, 1);
  const std::string bytes = *ReadFile(path);
  std::string damaged = bytes;
  damaged[bytes.size() / 2] ^= 4;
  ASSERT_TRUE(WriteFileAtomically(path, damaged).ok());
  absl::Status status = EmbeddedSessionLog::Open(options_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat(path, " is damaged at byte ")));

  ASSERT_TRUE(WriteFileAtomically(path, bytes).ok());
  Open();
  ASSERT_TRUE(log_->Compact().ok());
  log_.reset();
  const std::string snapshot = SessionFilePath(options_.folder, SessionFileKind::kSnapshot, 2);
  std::string snapshot_bytes = *ReadFile(snapshot);
  ASSERT_TRUE(WriteFileAtomically(snapshot, snapshot_bytes.substr(0, 60)).ok());
  status = EmbeddedSessionLog::Open(options_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr(snapshot));

  ASSERT_TRUE(WriteFileAtomically(snapshot, snapshot_bytes).ok());
  std::filesystem::remove(SessionFilePath(options_.folder, SessionFileKind::kEvents, 2));
  status = EmbeddedSessionLog::Open(options_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("is missing"));
}

TEST_F(EmbeddedLogTest, OneProcessHasAFolder) {
  Open();
  const absl::Status status = EmbeddedSessionLog::Open(options_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(absl::StrCat("is in use by process ", getpid())));
}

TEST_F(EmbeddedLogTest, AForgottenUserIsGoneAndLeavesTheDiskWithTheNextSnapshot) {
  Open();
  const uint64_t before = Append("secret user", {"secret item"}).session;
  Append("v", {"x"});
  EXPECT_TRUE(*log_->Forget("secret user"));
  EXPECT_FALSE(*log_->Forget("secret user"));
  EXPECT_EQ(Read("secret user").session, 0u);
  Reopen();
  EXPECT_EQ(Read("secret user").session, 0u);
  EXPECT_THAT(AllBytes(), HasSubstr("secret"));
  ASSERT_TRUE(log_->Compact().ok());
  EXPECT_THAT(AllBytes(), testing::Not(HasSubstr("secret")));
  EXPECT_THAT(Items(Read("v")), ElementsAre("x"));
  const SessionAppended again = Append("secret user", {"new"});
  EXPECT_EQ(again.end, 1);
  EXPECT_NE(again.session, before);
}

TEST_F(EmbeddedLogTest, IsBoundedAndGivesUpTheSessionsOfLongestAgo) {
  options_.max_bytes = 20'000;
  Open();
  for (int i = 0; i < 400; ++i) {
    Append(absl::StrCat("user ", i), {"some item"});
    Append("often", {"other"});
    EXPECT_LE(log_->stats().bytes, 20'000);
  }
  const SessionLogStats stats = log_->stats();
  EXPECT_GT(stats.evicted, 200);
  EXPECT_EQ(Read("user 0").session, 0u);
  EXPECT_EQ(log_->BytesOf("user 0"), 0u);
  EXPECT_NE(Read("user 399").session, 0u);
  EXPECT_EQ(Read("often").end, 400);
  EXPECT_GT(log_->BytesOf("often"), log_->BytesOf("user 399"));
  Append("user 0", {"again"});  // another session
  Reopen();
  EXPECT_LE(log_->stats().bytes, 20'000);
  EXPECT_EQ(Read("user 0").end, 1);
  EXPECT_EQ(Read("often").end, 400);
}

TEST_F(EmbeddedLogTest, SessionsExpireByTheirLastEvent) {
  options_.ttl = absl::Hours(1);
  Open();
  const uint64_t first = Append("u", {"a"}).session;
  Append("v", {"x"});
  Advance(absl::Minutes(50));
  Append("u", {"b"});
  Advance(absl::Minutes(50));
  EXPECT_EQ(Read("u").session, first);
  EXPECT_EQ(Read("v").session, 0u);
  Advance(absl::Minutes(11));
  const SessionAppended next = Append("u", {"c"});
  EXPECT_EQ(next.end, 1);
  EXPECT_NE(next.session, first);
  Advance(absl::Minutes(59));
  Reopen();
  EXPECT_THAT(Items(Read("u")), ElementsAre("c"));
  Advance(absl::Minutes(2));
  Reopen();
  EXPECT_EQ(Read("u").session, 0u);
  EXPECT_EQ(log_->stats().sessions, 0);
}

TEST_F(EmbeddedLogTest, AChangedWallClockNeitherExpiresNorKeepsSessions) {
  options_.ttl = absl::Hours(1);
  Open();
  Append("u", {"a"});
  wall_ms_ += absl::ToInt64Milliseconds(absl::Hours(24 * 365));
  EXPECT_EQ(Read("u").end, 1);
  Append("v", {"b"});
  wall_ms_ -= 2 * absl::ToInt64Milliseconds(absl::Hours(24 * 365));
  EXPECT_EQ(Read("u").end, 1);
  EXPECT_EQ(Append("u", {"c"}).end, 2);
  Reopen();  // to the wall clock, these events lie ahead
  EXPECT_EQ(Read("u").end, 2);
  EXPECT_EQ(Read("v").end, 1);
  steady_ms_ += absl::ToInt64Milliseconds(absl::Minutes(61));
  EXPECT_EQ(Read("u").end, 0);
  EXPECT_EQ(Read("v").end, 0);
}

TEST_F(EmbeddedLogTest, AFullDiskRefusesEventsLosesNoneAndRecordsAgainWithRoom) {
  Open();
  int64_t recorded = 0;
  {
    const FullDisk full(2000);
    absl::Status status;
    for (int i = 0; i < 1000 && status.ok(); ++i) {
      const auto appended =
          log_->Append("u", Events({absl::StrCat("item ", i)}), absl::StrCat("call ", i));
      status = appended.status();
      recorded += status.ok() ? 1 : 0;
    }
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(status.message()), HasSubstr("events-000000000001.log"));
    EXPECT_EQ(Read("u").end, recorded);
    EXPECT_GT(recorded, 5);
  }
  EXPECT_FALSE(Append("u", {"item"}, absl::StrCat("call ", recorded)).duplicate);
  Reopen();
  EXPECT_EQ(Read("u").end, recorded + 1);
}

TEST_F(EmbeddedLogTest, ASnapshotThatDoesNotFitChangesNothing) {
  options_.sync = EmbeddedSessionLog::Sync::kDisk;
  Open();
  for (int i = 0; i < 100; ++i) Append(absl::StrCat("user ", i), {"some item"});
  {
    const FullDisk full(1000);
    EXPECT_EQ(log_->Compact().code(), absl::StatusCode::kResourceExhausted);
  }
  Append("u", {"x"});
  Reopen();
  EXPECT_EQ(log_->stats().sessions, 101);
  ASSERT_TRUE(log_->Compact().ok());
  Reopen();
  EXPECT_EQ(log_->stats().sessions, 101);
  EXPECT_EQ(ListSessionFiles(options_.folder)->events.size(), 1u);
}

TEST_F(EmbeddedLogTest, RefusesWhatItCouldNotReadAgain) {
  Open();
  const auto message = [&](const std::string& user, const std::vector<SessionEvent>& events) {
    return std::string(log_->Append(user, events, "").status().message());
  };
  EXPECT_THAT(message("u", Events({std::string(513, 'i')})), HasSubstr("an item id has 513 bytes"));
  EXPECT_THAT(message("", Events({"i"})), HasSubstr("user id has 0 bytes"));
  EXPECT_THAT(message("u", std::vector<SessionEvent>(1001, {"i", kTime})),
              HasSubstr("1001 events; at most 1000"));
  options_.events_per_session = 1001;
  EXPECT_THAT(std::string(EmbeddedSessionLog::Open(options_).status().message()),
              HasSubstr("events per session: 1001"));
}

}  // namespace
}  // namespace nestrec
