// Sessions in a Redis Cluster of three nodes of this test's own.
#include "server/session/redis_cluster.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "server/session/redis_log.h"
#include "tests/server/session/redis_server.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

TEST(RedisClusterTest, SlotsAreThoseOfTheSpecification) {
  EXPECT_EQ(RedisSlot("123456789"), 0x31c3 % 16384);  // the specification's example
  EXPECT_EQ(RedisSlot("foo"), 12182);
  EXPECT_EQ(RedisSlot("{foo}.a"), 12182);
  EXPECT_EQ(RedisSlot("nestrec:{foo}:events"), RedisSlot("nestrec:{foo}:calls"));
  EXPECT_EQ(RedisSlot("x{}foo"), RedisSlot("x{}foo"));
  EXPECT_NE(RedisSlot("x{}foo"), RedisSlot("x{}bar"));
}

TEST(RedisClusterTest, NodesAreReadAsAnswersNameThem) {
  const RedisAddress from{.host = "redis.example", .port = 6379, .user = "me"};
  EXPECT_EQ(RedisNodeAddress("10.0.0.1:7001", from)->ToString(), "10.0.0.1:7001");
  EXPECT_EQ(RedisNodeAddress("10.0.0.1:7001", from)->user, "me");
  EXPECT_EQ(RedisNodeAddress(":7001", from)->ToString(), "redis.example:7001");
  EXPECT_EQ(RedisNodeAddress("::1:7001", from)->ToString(), "[::1]:7001");
  for (const char* none : {"", "host", "host:", "host:0", "?:7001", "host:70000"}) {
    const absl::Status status = RedisNodeAddress(none, from).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << none;
    EXPECT_THAT(std::string(status.message()), HasSubstr("cluster-announce-ip"));
  }
}

// A port that nobody has at the moment.
int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(fd);
  return ntohs(address.sin_port);
}

class RedisClusterOfThree : public testing::Test {
 protected:
  static constexpr int kNodes = 3;
  static constexpr int kSlots = 16384;

  struct Node {
    int port = 0, bus = 0;
    std::unique_ptr<ChildProcess> process;
  };

  void SetUp() override {
    if (RedisServer::Program().empty()) GTEST_SKIP() << RedisServer::kSkipReason;
    std::signal(SIGPIPE, SIG_IGN);
    for (Node& node : nodes_) {
      // Another program may take a port in between.
      for (int attempt = 0; attempt < 5 && !Start(node); ++attempt) node.port = 0;
      ASSERT_NE(node.port, 0);
      const int i = static_cast<int>(&node - nodes_.data());
      std::vector<std::string> slots = {"CLUSTER", "ADDSLOTS"};
      for (int slot = i * kSlots / kNodes; slot < (i + 1) * kSlots / kNodes; ++slot) {
        slots.push_back(absl::StrCat(slot));
      }
      Ask(node, slots);
      if (i > 0) {
        Ask(node, {"CLUSTER", "MEET", "127.0.0.1", absl::StrCat(nodes_[0].port),
                   absl::StrCat(nodes_[0].bus)});
      }
    }
    const absl::Time deadline = absl::Now() + absl::Minutes(2);
    for (const Node& node : nodes_) {
      std::string info;
      do {
        info = Ask(node, {"CLUSTER", "INFO"}).text;
        ASSERT_LT(absl::Now(), deadline) << info;
        std::this_thread::yield();
      } while (!absl::StrContains(info, "cluster_state:ok") ||
               !absl::StrContains(info, "cluster_known_nodes:3"));
    }
  }

  bool Start(Node& node) {
    node.port = FreePort();
    node.bus = FreePort();
    const std::string folder = folder_.File(absl::StrCat(node.port));
    if (!MakeDirectories(folder).ok()) return false;
    auto started = ChildProcess::Start({RedisServer::Program(), "--port", absl::StrCat(node.port),
                                        "--bind", "127.0.0.1", "--cluster-enabled", "yes",
                                        "--cluster-port", absl::StrCat(node.bus), "--dir", folder,
                                        "--save", "", "--appendonly", "no", "--daemonize", "no"});
    if (!started.ok()) return false;
    node.process = *std::move(started);
    return node.process->WaitForOutput("eady to accept connections").ok();
  }

  static RedisAddress AddressOf(const Node& node) {
    return {.host = "127.0.0.1", .port = node.port};
  }
  static RedisValue Ask(const Node& node, const std::vector<std::string>& command) {
    auto connection = RedisConnection::Connect(AddressOf(node), "", absl::Seconds(60));
    EXPECT_TRUE(connection.ok()) << connection.status();
    auto value = (*connection)->Command(command);
    EXPECT_TRUE(value.ok()) << value.status();
    return value.value_or(RedisValue());
  }
  Node& NodeOf(int slot) { return nodes_[static_cast<size_t>(slot * kNodes / kSlots)]; }

  std::unique_ptr<RedisSessionLog> Open(const Node& node) {
    return std::make_unique<RedisSessionLog>(RedisSessionLog::Options{
        .redis = {.address = AddressOf(node), .timeout = absl::Seconds(60)}});
  }

  TempFolder folder_;
  std::array<Node, kNodes> nodes_;
};

std::vector<SessionEvent> Events(const std::vector<std::string>& items) {
  std::vector<SessionEvent> events;
  for (const std::string& item : items) events.push_back({item, absl::FromUnixMillis(1)});
  return events;
}

TEST_F(RedisClusterOfThree, UsersLieOnAllNodesWhicheverIsNamed) {
  const auto one = Open(nodes_[0]);
  const auto other = Open(nodes_[2]);
  EXPECT_TRUE(one->Ping().ok());
  for (int user = 0; user < 60; ++user) {
    const std::string id = absl::StrCat("user ", user);
    ASSERT_TRUE(one->Append(id, Events({"a"}), "1").ok());
    EXPECT_TRUE(other->Append(id, Events({"a"}), "1")->duplicate);
    const auto appended = other->Append(id, Events({"b"}), "2");
    ASSERT_TRUE(appended.ok()) << appended.status();
    EXPECT_EQ(appended->end, 2);
    EXPECT_EQ(one->Read(id, 10)->events.size(), 2u);
  }
  for (const Node& node : nodes_) EXPECT_GT(Ask(node, {"DBSIZE"}).integer, 5);
  for (int user = 0; user < 60; ++user) EXPECT_TRUE(*one->Forget(absl::StrCat("user ", user)));
  for (const Node& node : nodes_) EXPECT_EQ(Ask(node, {"DBSIZE"}).integer, 0);
}

TEST_F(RedisClusterOfThree, ASlotThatMovesIsFollowed) {
  const auto log = Open(nodes_[0]);
  ASSERT_TRUE(log->Append("u", Events({"a"}), "1").ok());
  const std::string key = "nestrec:{u}:events";
  const std::string slot = absl::StrCat(RedisSlot(key));
  Node& from = NodeOf(RedisSlot(key));
  Node& to = &from == &nodes_[1] ? nodes_[2] : nodes_[1];
  const std::string from_id = Ask(from, {"CLUSTER", "MYID"}).text;
  const std::string to_id = Ask(to, {"CLUSTER", "MYID"}).text;
  Ask(to, {"CLUSTER", "SETSLOT", slot, "IMPORTING", from_id});
  Ask(from, {"CLUSTER", "SETSLOT", slot, "MIGRATING", to_id});
  // Half-way (ASK): the key has gone already, the slot has not.
  Ask(from, {"MIGRATE", "127.0.0.1", absl::StrCat(to.port), key, "0", "60000"});
  ASSERT_TRUE(log->Append("u", Events({"b"}), "2").ok());
  EXPECT_EQ(log->Read("u", 10)->events.size(), 2u);
  for (const Node* node : {&to, &from}) Ask(*node, {"CLUSTER", "SETSLOT", slot, "NODE", to_id});
  // Done (MOVED).
  ASSERT_TRUE(log->Append("u", Events({"c"}), "3").ok());
  EXPECT_EQ(log->Read("u", 10)->end, 3);
  EXPECT_EQ(Ask(to, {"DBSIZE"}).integer, 1);
}

TEST_F(RedisClusterOfThree, ANodeThatIsGoneTakesItsUsersAlone) {
  const auto log = Open(nodes_[0]);
  const auto id = [](int user) { return absl::StrCat("user ", user); };
  const auto slot = [&](int user) {
    return RedisSlot(absl::StrCat("nestrec:{", id(user), "}:events"));
  };
  for (int user = 0; user < 30; ++user) {
    ASSERT_TRUE(log->Append(id(user), Events({"a"}), "1").ok());
  }
  for (Node& node : nodes_) Ask(node, {"CONFIG", "SET", "cluster-require-full-coverage", "no"});
  nodes_[1].process.reset();
  for (int user = 0; user < 30; ++user) {
    const absl::Status status = log->Read(id(user), 10).status();
    if (&NodeOf(slot(user)) == &nodes_[1]) {
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    } else {
      EXPECT_TRUE(status.ok()) << status;
    }
  }
}

}  // namespace
}  // namespace nestrec
