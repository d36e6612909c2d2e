// The real server with sessions, and what may befall it: killed while it records, a disk that fills
// up, a Redis that goes, stalls, comes back or changes its password.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "server/client.h"
#include "server/session/redis_connection.h"
#include "server/status_details.h"
#include "tests/server/session/redis_server.h"
#include "tests/testing/child_process.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

class SessionBinary : public ::testing::Test {
 protected:
  SessionBinary() : model_(folder_.File("model.safetensors")), store_(folder_.File("sessions")) {}
  void SetUp() override {
    ASSERT_TRUE(RandomModel({.sizes = {8, 16}, .max_len = 10}).Write(model_).ok());
  }

  std::unique_ptr<ChildProcess> Run(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {
        NESTREC_PROGRAM, "serve",     "--model", model_,        "--listen",
        "127.0.0.1:0",   "--threads", "1",       "--port-file", folder_.File("port")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    auto child = ChildProcess::Start(arguments);
    EXPECT_TRUE(child.ok()) << child.status();
    return child.ok() ? *std::move(child) : nullptr;
  }
  std::unique_ptr<ChildProcess> Serve(const std::vector<std::string>& more) {
    auto child = Run(more);
    const auto line = child->WaitForOutput(" serving ");
    EXPECT_TRUE(line.ok()) << line.status();
    const std::string port = ReadFile(folder_.File("port")).value_or("");
    client_ = std::make_unique<RecommendClient>(RecommendClient::Options{
        .server = absl::StrCat("127.0.0.1:", absl::StripSuffix(port, "\n")),
        .timeout = absl::Seconds(60)});
    return child;
  }

  absl::StatusOr<v1::RecordEventsResponse> Record(const std::string& user, int32_t item,
                                                  const std::string& event_id) {
    v1::RecordEventsRequest request;
    request.set_user_id(user);
    request.add_item_ids(RandomModelItemId(item));
    request.set_event_id(event_id);
    return client_->RecordEvents(request);
  }
  int64_t EventCount(const std::string& user) {
    v1::RecommendRequest request;
    request.set_user_id(user);
    const auto response = client_->Recommend(request);
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? response->served().session_event_count() : -1;
  }

  TempFolder folder_;
  std::string model_, store_;
  std::unique_ptr<RecommendClient> client_;
};

TEST_F(SessionBinary, WhatWasAnsweredSurvivesAKillWhileRecording) {
  constexpr int kThreads = 4;
  std::vector<std::atomic<int>> answered(kThreads);
  int calls = 0;
  for (int round = 0; round < 3; ++round) {
    auto server = Serve({"--sessions", store_, "--session-sync", round == 1 ? "disk" : "process"});
    for (int t = 0; t < kThreads; ++t) {
      EXPECT_GE(EventCount(absl::StrCat("user ", t)), answered[static_cast<size_t>(t)]);
      // Of what was not answered, at most the call that was on its way is there.
      EXPECT_LE(EventCount(absl::StrCat("user ", t)), answered[static_cast<size_t>(t)] + round);
    }
    std::vector<std::thread> threads;
    std::atomic<int> in_all{0};
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        while (true) {
          std::atomic<int>& mine = answered[static_cast<size_t>(t)];
          const auto response = Record(absl::StrCat("user ", t), 1 + mine % 100,
                                       absl::StrCat("call ", round, " ", mine.load()));
          if (!response.ok()) return;
          ++mine;
          // In the middle of what the others record.
          if (++in_all == 150) server->Signal(SIGKILL);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    calls += in_all;
    EXPECT_EQ(*server->WaitForExit(), 128 + SIGKILL);
  }
  EXPECT_GE(calls, 3 * 150);
}

TEST_F(SessionBinary, ARetryAfterAKillCountsOnce) {
  {
    auto server = Serve({"--sessions", store_});
    ASSERT_TRUE(Record("u", 1, "call").ok());
    server->Signal(SIGKILL);
    ASSERT_TRUE(server->WaitForExit().ok());
  }
  auto server = Serve({"--sessions", store_});
  EXPECT_TRUE(Record("u", 1, "call")->duplicate());
  EXPECT_EQ(EventCount("u"), 1);
}

TEST_F(SessionBinary, AFullDiskRefusesEventsServesOnAndRecordsAgainWithRoom) {
  auto server = Serve({"--sessions", store_});
  // The file may not grow beyond this: a disk that is full for this process alone.
  const auto limit_file_size = [&](rlim_t bytes) {
    rlimit limit{.rlim_cur = bytes, .rlim_max = RLIM_INFINITY};
    return prlimit(server->pid(), RLIMIT_FSIZE, &limit, nullptr);
  };
  ASSERT_EQ(limit_file_size(4000), 0);
  int64_t recorded = 0;
  absl::Status status;
  for (int i = 0; i < 1000 && status.ok(); ++i) {
    status = Record("u", 1 + i % 100, absl::StrCat("call ", i)).status();
    recorded += status.ok() ? 1 : 0;
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("events-000000000001.log"));
  EXPECT_TRUE(RetryDelayOf(status).has_value());
  EXPECT_GT(recorded, 10);
  EXPECT_EQ(EventCount("u"), recorded);
  ASSERT_EQ(limit_file_size(RLIM_INFINITY), 0);
  const auto retried = Record("u", 1, absl::StrCat("call ", recorded));
  ASSERT_TRUE(retried.ok()) << retried.status();
  EXPECT_FALSE(retried->duplicate());
  server->Signal(SIGKILL);
  ASSERT_TRUE(server->WaitForExit().ok());
  server = Serve({"--sessions", store_});
  EXPECT_EQ(EventCount("u"), recorded + 1);
}

TEST_F(SessionBinary, RefusesAFolderInUseADamagedOneAndBadFlags) {
  {
    auto first = Serve({"--sessions", store_});
    ASSERT_TRUE(Record("u", 1, "1").ok());
    ASSERT_TRUE(Record("u", 2, "2").ok());
    auto second = Run({"--sessions", store_});
    EXPECT_EQ(*second->WaitForExit(), 1);
    EXPECT_THAT(second->output(), HasSubstr("is in use by process"));
  }
  const std::string path = store_ + "/events-000000000001.log";
  std::string bytes = *ReadFile(path);
  bytes[50] ^= 1;
  ASSERT_TRUE(WriteFileAtomically(path, bytes).ok());
  auto damaged = Run({"--sessions", store_});
  EXPECT_EQ(*damaged->WaitForExit(), 1);
  EXPECT_THAT(damaged->output(), HasSubstr(absl::StrCat("error: ", path, " is damaged at byte ")));

  for (const std::vector<std::string>& flags :
       std::vector<std::vector<std::string>>{{"--sessions", "redis://host:0"},
                                             {"--sessions", "redis://u:secret@host"},
                                             {"--sessions", store_, "--session-ttl", "soon"},
                                             {"--sessions", store_, "--session-events", "0"},
                                             {"--sessions", store_, "--session-sync", "maybe"},
                                             {"--sessions", store_, "--redis-timeout", "0s"}}) {
    auto refused = Run(flags);
    EXPECT_EQ(*refused->WaitForExit(), 2) << flags[1];
    EXPECT_THAT(refused->output(), HasSubstr("error: --"));
    EXPECT_THAT(refused->output(), testing::Not(HasSubstr("secret@")));
  }
  auto short_log = Run({"--sessions", folder_.File("other"), "--session-events", "9"});
  EXPECT_EQ(*short_log->WaitForExit(), 2);
  EXPECT_THAT(short_log->output(), HasSubstr("keep 9 events, but the model reads the last 10"));
}

// A volume that is mounted read-only, new or with sessions of before.
TEST_F(SessionBinary, RefusesAVolumeThatCannotBeWritten) {
  {
    auto before = Serve({"--sessions", folder_.File("volume/with_sessions")});
    ASSERT_TRUE(Record("u", 1, "1").ok());
  }
  const auto under_read_only_mount = [&](const std::vector<std::string>& command) {
    std::vector<std::string> arguments = {"/usr/bin/unshare",
                                          "--mount",
                                          "/bin/sh",
                                          "-ec",
                                          "mount --bind \"$0\" \"$0\"; "
                                          "mount -o remount,bind,ro \"$0\"; exec \"$@\"",
                                          folder_.File("volume")};
    arguments.insert(arguments.end(), command.begin(), command.end());
    return ChildProcess::Start(arguments);
  };
  const auto probe = under_read_only_mount({"/bin/true"});
  if (!probe.ok() || (*probe)->WaitForExit().value_or(1) != 0) {
    GTEST_SKIP() << "this user may not mount";
  }
  for (const char* name : {"with_sessions", "new"}) {
    auto server = under_read_only_mount({NESTREC_PROGRAM, "serve", "--model", model_, "--listen",
                                         "127.0.0.1:0", "--sessions",
                                         absl::StrCat(folder_.File("volume"), "/", name)});
    ASSERT_TRUE(server.ok()) << server.status();
    EXPECT_EQ(*(*server)->WaitForExit(), 1);
    EXPECT_THAT((*server)->output(), HasSubstr("error: "));
    EXPECT_THAT((*server)->output(), HasSubstr(absl::StrCat("/volume/", name)));
    EXPECT_THAT((*server)->output(),
                HasSubstr("Read-only file system; choose a place that can be written"));
  }
}

TEST_F(SessionBinary, ARedisThatGoesStallsAndComesBackIsSaidSo) {
  if (RedisServer::Program().empty()) GTEST_SKIP() << RedisServer::kSkipReason;
  RedisServer redis(folder_.path());
  auto without = Run({"--sessions", redis.url()});
  EXPECT_EQ(*without->WaitForExit(), 1);
  EXPECT_THAT(without->output(), HasSubstr("cannot connect to Redis at"));
  ASSERT_TRUE(redis.Start().ok());

  auto server = Serve({"--sessions", redis.url(), "--redis-timeout", "1s"});
  ASSERT_TRUE(Record("u", 1, "1").ok());
  EXPECT_EQ(EventCount("u"), 1);
  v1::RecommendRequest with_session;
  with_session.set_user_id("u");
  const auto expect_unavailable = [&] {
    for (const absl::Status& status :
         {Record("u", 2, "2").status(), client_->Recommend(with_session).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("Redis at"));
      EXPECT_TRUE(RetryDelayOf(status).has_value());
    }
    EXPECT_TRUE(client_->Recommend({}).ok());  // nobody else notices
  };
  const auto record_until_ok = [&](int32_t item, const std::string& event_id) {
    absl::StatusOr<v1::RecordEventsResponse> response = Record("u", item, event_id);
    while (absl::IsUnavailable(response.status())) response = Record("u", item, event_id);
    EXPECT_TRUE(response.ok()) << response.status();
  };
  redis.Stop();
  expect_unavailable();
  ASSERT_TRUE(redis.Start().ok());
  record_until_ok(2, "2");
  EXPECT_EQ(EventCount("u"), 2);

  redis.Pause();
  expect_unavailable();
  redis.Continue();
  record_until_ok(2, "2");  // whether it was recorded before or not, it counts once
  record_until_ok(3, "3");
  EXPECT_EQ(EventCount("u"), 3);
}

TEST_F(SessionBinary, APasswordOfRedisIsRotatedWhileServing) {
  if (RedisServer::Program().empty()) GTEST_SKIP() << RedisServer::kSkipReason;
  RedisServer redis(folder_.path());
  ASSERT_TRUE(redis.Start().ok());
  const auto ask = [&](const std::string& password, const std::vector<std::string>& command) {
    auto connection =
        RedisConnection::Connect(*RedisAddress::Parse(redis.url()), password, absl::Seconds(60));
    ASSERT_TRUE(connection.ok()) << connection.status();
    ASSERT_TRUE((*connection)->Command(command).ok());
  };
  ask("", {"CONFIG", "SET", "requirepass", "old"});
  const std::string file = folder_.File("password");
  ASSERT_TRUE(WriteFileAtomically(file, "old\n").ok());
  auto server = Serve({"--sessions", redis.url(), "--redis-password-file", file});
  ASSERT_TRUE(Record("u", 1, "1").ok());

  // The file follows a while after Redis, as a Secret does.
  ask("old", {"CONFIG", "SET", "requirepass", "new"});
  ask("new", {"CLIENT", "KILL", "TYPE", "normal"});
  const absl::Status refused = Record("u", 2, "2").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable) << refused;
  EXPECT_TRUE(RetryDelayOf(refused).has_value());
  EXPECT_TRUE(client_->Recommend({}).ok());
  ASSERT_TRUE(server->WaitForOutput("redis_refuses_login").ok());

  ASSERT_TRUE(WriteFileAtomically(file, "new\n").ok());
  absl::StatusOr<v1::RecordEventsResponse> response = Record("u", 2, "2");
  while (absl::IsUnavailable(response.status())) response = Record("u", 2, "2");
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(EventCount("u"), 2);
}

}  // namespace
}  // namespace nestrec
