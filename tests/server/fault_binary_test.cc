// The real server and what may befall it: clients that flood, idle or never read, no file
// descriptors, a signal under load, a full disk, a clock that jumps, a slow Redis. After each it
// still answers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "server/client.h"
#include "tests/server/raw_http2.h"
#include "tests/server/raw_rpc.h"
#include "tests/server/session/redis_server.h"
#include "tests/testing/child_process.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kRecommend[] = "/nestrec.v1.RecommendService/Recommend";

// Of a process, in bytes.
int64_t ResidentBytes(pid_t pid) {
  for (const absl::string_view line :
       absl::StrSplit(*ReadFile(absl::StrCat("/proc/", pid, "/status")), '\n')) {
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    int64_t kilobytes = 0;
    if (words.size() == 3 && words[0] == "VmRSS:" && absl::SimpleAtoi(words[1], &kilobytes)) {
      return 1024 * kilobytes;
    }
  }
  return -1;
}

int64_t OpenFiles(pid_t pid) {
  const std::filesystem::directory_iterator files(absl::StrCat("/proc/", pid, "/fd"));
  return std::distance(begin(files), end(files));
}

// Until `condition` holds; false after a minute.
template <typename Condition>
bool Eventually(Condition&& condition) {
  const absl::Time end = absl::Now() + absl::Minutes(1);
  while (!condition()) {
    if (absl::Now() > end) return false;
    absl::SleepFor(absl::Milliseconds(10));
  }
  return true;
}

class FaultBinary : public ::testing::Test {
 protected:
  void SetUp() override {
    model_ = folder_.File("model.safetensors");
    ASSERT_TRUE(RandomModel({.sizes = {8, 16, 64}}).Write(model_).ok());
  }

  // `before`: a program and its arguments that start the server in their turn.
  std::unique_ptr<ChildProcess> Serve(const std::vector<std::string>& more = {},
                                      std::vector<std::string> before = {}) {
    const std::vector<std::string> serve = {
        NESTREC_PROGRAM, "serve",     "--model", model_,        "--listen",
        "127.0.0.1:0",   "--threads", "1",       "--port-file", folder_.File("port")};
    before.insert(before.end(), serve.begin(), serve.end());
    before.insert(before.end(), more.begin(), more.end());
    auto child = ChildProcess::Start(before);
    EXPECT_TRUE(child.ok()) << child.status();
    const auto line = (*child)->WaitForOutput(" serving ");
    EXPECT_TRUE(line.ok()) << line.status();
    EXPECT_TRUE(absl::SimpleAtoi(
        absl::StripAsciiWhitespace(ReadFile(folder_.File("port")).value_or("")), &port_));
    return *std::move(child);
  }
  // A connection of its own.
  std::unique_ptr<RecommendClient> Client() const {
    return std::make_unique<RecommendClient>(RecommendClient::Options{
        .server = absl::StrCat("127.0.0.1:", port_), .timeout = absl::Seconds(60)});
  }
  // Anew and over the connections that are there.
  void ExpectAnswers() const {
    const absl::Status status = Client()->Recommend({}).status();
    EXPECT_TRUE(status.ok()) << status;
  }
  static void ExpectCleanEnd(ChildProcess& server) {
    server.Signal(SIGTERM);
    const auto code = server.WaitForExit();
    ASSERT_TRUE(code.ok()) << code.status();
    EXPECT_EQ(*code, 0) << server.output();
  }

  TempFolder folder_;
  std::string model_;
  int port_ = 0;
};

TEST_F(FaultBinary, AClientThatNeverReadsCostsLittleAndHarmsNobody) {
  auto server = Serve({"--grace", "1s"});
  ExpectAnswers();
  const int64_t before = ResidentBytes(server->pid());
  v1::RecommendRequest request;
  for (int i = 0; i < 40; ++i) request.add_history_item_ids(RandomModelItemId(1 + i));
  request.set_k(100);
  const std::string message = request.SerializeAsString();
  std::vector<RawConnection> greedy;
  for (int connection = 0; connection < 3; ++connection) {
    greedy.emplace_back(port_, 4096);
    ASSERT_TRUE(greedy.back().ok());
    EXPECT_TRUE(greedy.back().Send(Http2Preface()));
    // The server may well hang up in between.
    for (uint32_t call = 0; call < 10'000; ++call) {
      if (!greedy.back().Send(Http2Call(2 * call + 1, kRecommend, message))) break;
    }
    // While the queue is full of what was sent, others are turned away too.
    EXPECT_TRUE(Eventually([&] { return Client()->Recommend({}).ok(); }));
  }
  // Three thousand calls at most are kept, of 30,000 that were sent.
  EXPECT_LT(ResidentBytes(server->pid()) - before, int64_t{1} << 30);
  ExpectAnswers();
  ExpectCleanEnd(*server);
}

TEST_F(FaultBinary, RequestsThatAreNoTextFillNoLog) {
  const auto server = Serve();
  const auto channel =
      grpc::CreateChannel(absl::StrCat("127.0.0.1:", port_), grpc::InsecureChannelCredentials());
  for (int i = 0; i < 300; ++i) {
    const RawReply reply = RawUnaryCall(channel, kRecommend, BytesField(1, "\xff\xfe"));
    EXPECT_FALSE(reply.status.ok());
  }
  ExpectAnswers();
  server->Signal(SIGTERM);
  ASSERT_TRUE(server->WaitForExit().ok());
  const std::vector<std::string> lines = absl::StrSplit(server->output(), '\n');
  const auto of_library = std::count_if(lines.begin(), lines.end(), [](const std::string& line) {
    return absl::StrContains(line, " library ");
  });
  EXPECT_GT(of_library, 0) << server->output();
  EXPECT_LT(of_library, 250);  // a line a second, however long 300 calls take
}

TEST_F(FaultBinary, TenThousandIdleConnectionsLeaveRoomForMore) {
  constexpr rlim_t kConnections = 10'000;
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_max < kConnections + 500) {
    GTEST_SKIP() << "a process may open " << limit.rlim_max << " files here; this needs "
                 << kConnections + 500;
  }
  const rlimit wide{.rlim_cur = kConnections + 500, .rlim_max = limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &wide), 0);  // the server inherits it
  auto server = Serve({"--grace", "1s"});
  {
    std::vector<RawConnection> idle;
    for (rlim_t i = 0; i < kConnections; ++i) {
      idle.emplace_back(port_);
      ASSERT_TRUE(idle.back().ok()) << i;
      ASSERT_TRUE(idle.back().Send(Http2Preface())) << i;
    }
    EXPECT_TRUE(
        Eventually([&] { return OpenFiles(server->pid()) >= static_cast<int64_t>(kConnections); }));
    ExpectAnswers();
    EXPECT_LT(ResidentBytes(server->pid()), int64_t{2} << 30);
  }
  EXPECT_TRUE(Eventually([&] { return OpenFiles(server->pid()) < 500; }));
  ExpectAnswers();
  ExpectCleanEnd(*server);
  setrlimit(RLIMIT_NOFILE, &limit);
}

TEST_F(FaultBinary, WithoutFileDescriptorsItServesOnAndTakesCallersAgainWhenThereAreSome) {
  auto server = Serve({"--grace", "1s"});
  const auto early = Client();
  ASSERT_TRUE(early->Recommend({}).ok());
  const auto limit_files = [&](rlim_t files) {
    rlimit limit{};
    prlimit(server->pid(), RLIMIT_NOFILE, nullptr, &limit);
    limit.rlim_cur = files;
    return prlimit(server->pid(), RLIMIT_NOFILE, &limit, nullptr);
  };
  const auto room = static_cast<rlim_t>(OpenFiles(server->pid())) + 10;
  ASSERT_EQ(limit_files(room), 0);
  {
    std::vector<RawConnection> crowd;
    for (int i = 0; i < 50; ++i) {
      crowd.emplace_back(port_);
      if (crowd.back().ok()) crowd.back().Send(Http2Preface());
    }
    EXPECT_TRUE(
        Eventually([&] { return OpenFiles(server->pid()) >= static_cast<int64_t>(room) - 1; }));
    const absl::Status status = early->Recommend({}).status();
    EXPECT_TRUE(status.ok()) << status;
  }
  // The crowd has gone; or an operator raised the limit.
  EXPECT_TRUE(Eventually([&] { return Client()->Recommend({}).ok(); }));
  ASSERT_EQ(limit_files(1000), 0);
  EXPECT_TRUE(Eventually([&] { return Client()->Recommend({}).ok(); }));
  EXPECT_TRUE(early->Recommend({}).ok());
  ExpectCleanEnd(*server);
  EXPECT_THAT(server->output(), HasSubstr("accept_failed"));
  EXPECT_THAT(server->output(), HasSubstr("accepting_again"));
}

TEST_F(FaultBinary, ASignalUnderLoadFailsNobodyButByUnavailable) {
  auto server = Serve();
  constexpr int kThreads = 4;
  std::atomic<int> answered{0};
  std::vector<absl::Status> ends(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const auto client = Client();
      v1::RecommendRequest request;
      request.add_history_item_ids(RandomModelItemId(1 + t));
      while (true) {
        ends[static_cast<size_t>(t)] = client->Recommend(request).status();
        if (!ends[static_cast<size_t>(t)].ok()) return;
        // In the middle of what the others ask.
        if (++answered == 400) server->Signal(SIGTERM);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& end : ends) EXPECT_TRUE(absl::IsUnavailable(end)) << end;
  EXPECT_GE(answered, 400);
  EXPECT_EQ(*server->WaitForExit(), 0) << server->output();
}

TEST_F(FaultBinary, AFullDiskForIndexesIsSaidSoAndTheyServeFromMemory) {
  const std::string config = folder_.File("tiers.textproto");
  ASSERT_TRUE(
      WriteFileAtomically(config, "tiers { name: \"only\" dim: 64 index: \"HNSW32\" }").ok());
  const std::string indexes = folder_.File("indexes");
  const std::vector<std::string> flags = {"--config", config, "--index-folder", indexes};
  {
    // No file may be larger than 4 KB: a disk that is full for this process alone.
    auto server = Serve(flags, {"/bin/sh", "-c", "ulimit -f 8; exec \"$0\" \"$@\""});
    EXPECT_THAT(server->output(), HasSubstr("index_not_saved"));
    ExpectAnswers();
    ExpectCleanEnd(*server);
  }
  EXPECT_TRUE(!FileExists(indexes) || std::filesystem::is_empty(indexes));
  {
    auto server = Serve(flags);  // with room again
    EXPECT_THAT(server->output(), Not(HasSubstr("index_not_saved")));
    ExpectAnswers();
  }
  EXPECT_FALSE(std::filesystem::is_empty(indexes));
}

TEST_F(FaultBinary, AKillWhileAnIndexIsSavedLeavesNothingThatHarmsTheNextStart) {
  ASSERT_TRUE(RandomModel({.sizes = {8, 16, 64}, .items = 30'000}).Write(model_).ok());
  const std::string config = folder_.File("tiers.textproto");
  ASSERT_TRUE(
      WriteFileAtomically(config, "tiers { name: \"only\" dim: 64 index: \"IVF16,Flat\" }").ok());
  const std::string indexes = folder_.File("indexes");
  const auto files = [&] {
    std::vector<std::string> names;
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(indexes, none)) {
      names.push_back(entry.path().filename());
    }
    return names;
  };
  const std::vector<std::string> program = {
      NESTREC_PROGRAM, "serve", "--model",  model_, "--listen",       "127.0.0.1:0",
      "--threads",     "1",     "--config", config, "--index-folder", indexes};
  // A file that is being written has another name than the whole one.
  int partly = 0;
  for (int attempt = 0; attempt < 60 && partly == 0; ++attempt) {
    std::filesystem::remove_all(indexes);
    auto child = ChildProcess::Start(program);
    ASSERT_TRUE(child.ok()) << child.status();
    // Without a pause: writing takes milliseconds.
    for (const absl::Time end = absl::Now() + absl::Minutes(1);
         files().empty() && absl::Now() < end;) {
    }
    (*child)->Signal(SIGKILL);
    EXPECT_TRUE((*child)->WaitForExit().ok());
    for (const std::string& name : files()) partly += absl::EndsWith(name, ".index") ? 0 : 1;
  }
  EXPECT_GT(partly, 0) << "no kill came while a file was being written";
  auto server = Serve({"--config", config, "--index-folder", indexes});
  ExpectAnswers();
  ExpectCleanEnd(*server);
  for (const std::string& name : files()) EXPECT_TRUE(absl::EndsWith(name, ".index")) << name;
}

// The library of libfaketime, which shows a program another wall clock.
std::string FakeTimeLibrary() {
  for (const char* path : {"/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
                           "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"}) {
    if (FileExists(path)) return path;
  }
  return "";
}

TEST_F(FaultBinary, AWallClockThatJumpsExpiresNothing) {
  const std::string library = FakeTimeLibrary();
  if (library.empty()) GTEST_SKIP() << "no libfaketime here; tools/setup.sh test installs it";
  const std::string offset = folder_.File("offset");
  const auto jump = [&](const std::string& to) {
    ASSERT_TRUE(WriteFileAtomically(offset, to + "\n").ok());
  };
  jump("+0");
  auto server = Serve({"--sessions", folder_.File("sessions"), "--session-ttl", "1h"},
                      {"/usr/bin/env", absl::StrCat("LD_PRELOAD=", library),
                       absl::StrCat("FAKETIME_TIMESTAMP_FILE=", offset), "FAKETIME_NO_CACHE=1",
                       "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_FORCE_MONOTONIC_FIX=0"});
  const auto client = Client();
  v1::RecordEventsRequest events;
  events.set_user_id("u");
  events.add_item_ids(RandomModelItemId(1));
  ASSERT_TRUE(client->RecordEvents(events).ok());
  v1::RecommendRequest request;
  request.set_user_id("u");
  request.mutable_latency_budget()->set_seconds(30);
  int64_t count = 1;
  for (const char* to : {"+30d", "-30d", "+0"}) {
    jump(to);
    for (int i = 0; i < 5; ++i) {
      const auto response = client->Recommend(request);
      ASSERT_TRUE(response.ok()) << to << ": " << response.status();
      EXPECT_EQ(response->served().session_event_count(), count) << to;
      const auto& total = response->served().timings().total();
      EXPECT_GE(total.seconds(), 0) << to;
      EXPECT_LT(total.seconds(), 30) << to;
    }
    ASSERT_TRUE(client->RecordEvents(events).ok()) << to;
    ++count;
    ExpectAnswers();
  }
  // Its log was written at all these times.
  EXPECT_THAT(server->output(), Not(HasSubstr("error")));
  ExpectCleanEnd(*server);
}

TEST_F(FaultBinary, ASlowRedisSlowsItsOwnCallsAlone) {
  if (RedisServer::Program().empty()) GTEST_SKIP() << RedisServer::kSkipReason;
  RedisServer redis(folder_.path());
  ASSERT_TRUE(redis.Start().ok());
  auto server = Serve({"--sessions", redis.url(), "--redis-timeout", "30s"});
  const auto client = Client();
  v1::RecordEventsRequest events;
  events.set_user_id("u");
  events.add_item_ids(RandomModelItemId(1));
  ASSERT_TRUE(client->RecordEvents(events).ok());
  v1::RecommendRequest with_session;
  with_session.set_user_id("u");

  redis.Pause();
  std::atomic<int> ended{0};
  std::vector<std::thread> waiting;
  std::vector<absl::Status> ends(6);
  for (size_t i = 0; i < ends.size(); ++i) {
    waiting.emplace_back([&, i] {
      ends[i] = i % 2 == 0 ? client->RecordEvents(events).status()
                           : client->Recommend(with_session).status();
      ++ended;
    });
  }
  // Nobody else notices.
  for (int i = 0; i < 20; ++i) {
    const absl::Status status = client->Recommend({}).status();
    EXPECT_TRUE(status.ok()) << status;
  }
  EXPECT_EQ(ended, 0);
  redis.Continue();
  for (std::thread& thread : waiting) thread.join();
  for (const absl::Status& end : ends) EXPECT_TRUE(end.ok()) << end;
  EXPECT_EQ(client->Recommend(with_session)->served().session_event_count(), 4);
  ExpectCleanEnd(*server);
}

}  // namespace
}  // namespace nestrec
