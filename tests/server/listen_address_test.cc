#include "server/listen_address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

TEST(ListenAddress, ReadsHostAndPort) {
  const auto round_trip = [](const std::string& text) {
    return ListenAddress::Parse(text).value().ToString();
  };
  EXPECT_EQ(round_trip("127.0.0.1:50051"), "127.0.0.1:50051");
  EXPECT_EQ(round_trip("localhost:0"), "localhost:0");
  EXPECT_EQ(round_trip("[::1]:80"), "[::1]:80");
  EXPECT_EQ(round_trip(":50051"), "0.0.0.0:50051");
}

TEST(ListenAddress, RefusesWhatIsNone) {
  for (const char* text : {"", "50051", "localhost", "localhost:", "localhost:http",
                           "localhost:65536", "localhost:-1", "::1:50051", "unix:/tmp/socket"}) {
    const auto address = ListenAddress::Parse(text);
    EXPECT_EQ(address.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(address.status().message(), HasSubstr("127.0.0.1:50051")) << text;
  }
}

TEST(CheckCanListen, AcceptsAFreePort) {
  EXPECT_TRUE(CheckCanListen({.host = "127.0.0.1", .port = 0}).ok());
}

TEST(CheckCanListen, AcceptsAName) {
  addrinfo* found = nullptr;
  if (getaddrinfo("localhost", nullptr, nullptr, &found) != 0) {
    GTEST_SKIP() << "localhost has no address here: a bare image may have no /etc/hosts";
  }
  freeaddrinfo(found);
  EXPECT_TRUE(CheckCanListen({.host = "localhost", .port = 0}).ok());
}

TEST(CheckCanListen, NamesAPortInUse) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length), 0);
  const int port = ntohs(address.sin_port);

  const absl::Status status = CheckCanListen({.host = "127.0.0.1", .port = port});
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.message(),
              HasSubstr(absl::StrCat("127.0.0.1:", port, ": the port is in use")));
  close(fd);
  EXPECT_TRUE(CheckCanListen({.host = "127.0.0.1", .port = port}).ok());
}

TEST(CheckCanListen, NamesAnAddressOfAnotherMachine) {
  const absl::Status status =
      CheckCanListen({.host = "192.0.2.1", .port = 0});  // reserved for documentation
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("no such address"));
}

TEST(CheckCanListen, RefusesAHostThatDoesNotResolve) {
  const absl::Status status = CheckCanListen({.host = "no such host", .port = 0});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
}

}  // namespace
}  // namespace nestrec
