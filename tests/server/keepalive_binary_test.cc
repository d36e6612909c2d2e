// How often clients of the real server may ask whether it is still there, as docs/clients.md tells
// them to.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>

#include "tests/server/serve_program.h"

namespace nestrec {
namespace {

// An idle connection that pings this often. gRPC would double the interval by itself after it has
// been told to go away, so what is looked at is whether the first connection lasts.
std::shared_ptr<grpc::Channel> PingingChannel(const std::string& address, int interval_ms) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, interval_ms);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

// Whether the channel's first connection still stands `time` after it was made.
bool Lasts(grpc::Channel& channel, std::chrono::seconds time) {
  const auto now = [] { return std::chrono::system_clock::now(); };
  EXPECT_TRUE(channel.WaitForConnected(now() + std::chrono::minutes(1)));
  return !channel.WaitForStateChange(GRPC_CHANNEL_READY, now() + time);
}

TEST(Keepalive, AnIdleClientMayAskEverySixSeconds) {
  ServeProgram program({.program = NESTREC_PROGRAM});
  ASSERT_TRUE(program.Start().ok());
  const auto channel = PingingChannel(program.address(), 6'000);
  // Two pings too many are forgiven, the third closes: by now there were five.
  EXPECT_TRUE(Lasts(*channel, std::chrono::seconds(32)));
}

TEST(Keepalive, WhoAsksFourTimesASecondIsToldToGoAway) {
  ServeProgram program({.program = NESTREC_PROGRAM});
  ASSERT_TRUE(program.Start().ok());
  const auto channel = PingingChannel(program.address(), 250);
  EXPECT_FALSE(Lasts(*channel, std::chrono::minutes(1)));
}

}  // namespace
}  // namespace nestrec
