// Against servers that answer as the test says.
#include "server/load/load_generator.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>

#include "absl/strings/str_cat.h"
#include "nestrec/v1/recommend.grpc.pb.h"

namespace nestrec {
namespace {

// Calls `answer` for each Recommend, with how many there have been.
class ScriptedServer final : public v1::RecommendService::Service {
 public:
  using Answer = std::function<grpc::Status(int, v1::RecommendResponse*)>;

  explicit ScriptedServer(Answer answer) : answer_(std::move(answer)) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    address_ = absl::StrCat("127.0.0.1:", port);
  }

  grpc::Status Recommend(grpc::ServerContext* /*context*/, const v1::RecommendRequest* request,
                         v1::RecommendResponse* response) override {
    int number = 0;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      number = ++calls_;
      ++calls_of_user_[request->user_id()];
    }
    return answer_(number, response);
  }

  const std::string& address() const { return address_; }
  int calls() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return calls_;
  }
  std::map<std::string, int> calls_of_user() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return calls_of_user_;
  }

 private:
  const Answer answer_;
  std::mutex mutex_;
  int calls_ = 0;
  std::map<std::string, int> calls_of_user_;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

std::vector<LoadRequest> RequestsOf(size_t users) {
  return MakeRequests({.sessions = true}, std::vector<ItemIds>(users));
}

TEST(LoadGenerator, CountsAnswersErrorsAndWidths) {
  ScriptedServer server([](int number, v1::RecommendResponse* response) {
    if (number % 5 == 0) return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
    response->mutable_served()->set_dim(number % 2 == 0 ? 8 : 64);
    return grpc::Status::OK;
  });
  LoadGenerator generator({.client = {.server = server.address()}, .connections = 2},
                          RequestsOf(4));
  const LoadReport report = generator.Run({.rate = 500,
                                           .arrivals = Arrivals::kConstant,
                                           .duration = absl::Milliseconds(400),
                                           .deadline = absl::Seconds(60),
                                           .within = absl::Seconds(60)});
  EXPECT_EQ(server.calls(), 200);
  EXPECT_EQ(report.due(), 200);
  EXPECT_EQ(report.latency.count(), 160);
  EXPECT_EQ(report.errors.at(absl::StatusCode::kResourceExhausted).count, 40);
  EXPECT_EQ(report.dims, (std::map<int, int64_t>{{8, 80}, {64, 80}}));
  EXPECT_EQ(report.late.count(), 200);
  EXPECT_DOUBLE_EQ(report.goodput(), 400);
  // In turn.
  for (const auto& [user, calls] : server.calls_of_user()) EXPECT_EQ(calls, 50) << user;
}

TEST(LoadGenerator, SendsOnWhileAServerStallsAndCountsTheStallForEveryCall) {
  constexpr int kCalls = 16;
  std::mutex mutex;
  std::condition_variable changed;
  int waiting = 0;
  // Nobody is answered before the last has asked.
  ScriptedServer server([&](int /*number*/, v1::RecommendResponse* /*response*/) {
    std::unique_lock<std::mutex> lock(mutex);
    ++waiting;
    changed.notify_all();
    changed.wait(lock, [&] { return waiting == kCalls; });
    return grpc::Status::OK;
  });
  LoadGenerator generator({.client = {.server = server.address()}}, RequestsOf(1));
  const LoadReport report = generator.Run({.rate = 100,
                                           .arrivals = Arrivals::kConstant,
                                           .duration = absl::Milliseconds(kCalls * 10),
                                           .deadline = absl::Seconds(60),
                                           .within = absl::Seconds(60)});
  ASSERT_EQ(report.latency.count(), kCalls);
  // The last was due 150 ms after the first, 80 ms after the eighth.
  EXPECT_GE(report.latency.max(), absl::Milliseconds(150));
  EXPECT_GE(report.latency.Quantile(0.5), absl::Milliseconds(70));
}

TEST(LoadGenerator, CallsBeyondTheMostOnTheirWayAreNotSentAndCounted) {
  std::mutex mutex;
  std::condition_variable changed;
  bool ended = false;
  ScriptedServer server([&](int /*number*/, v1::RecommendResponse* /*response*/) {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return ended; });
    return grpc::Status::OK;
  });
  LoadGenerator generator({.client = {.server = server.address()}}, RequestsOf(1));
  const LoadReport report = generator.Run({.rate = 1000,
                                           .arrivals = Arrivals::kConstant,
                                           .duration = absl::Milliseconds(100),
                                           .deadline = absl::Milliseconds(300),
                                           .within = absl::Milliseconds(300),
                                           .most_on_their_way = 5});
  {
    const std::lock_guard<std::mutex> lock(mutex);
    ended = true;
  }
  changed.notify_all();
  EXPECT_EQ(report.not_sent, 95);
  EXPECT_EQ(report.errors.at(absl::StatusCode::kDeadlineExceeded).count, 5);
  EXPECT_EQ(report.goodput(), 0);
}

TEST(LoadGenerator, TheWarmUpDoesNotCount) {
  ScriptedServer server(
      [](int /*number*/, v1::RecommendResponse* /*response*/) { return grpc::Status::OK; });
  LoadGenerator generator({.client = {.server = server.address()}}, RequestsOf(1));
  const LoadReport report = generator.Run({.rate = 200,
                                           .arrivals = Arrivals::kConstant,
                                           .warm_up = absl::Milliseconds(100),
                                           .duration = absl::Milliseconds(300),
                                           .deadline = absl::Seconds(60),
                                           .within = absl::Seconds(60)});
  EXPECT_EQ(server.calls(), 80);
  EXPECT_EQ(report.due(), 60);
  EXPECT_DOUBLE_EQ(report.offered_rate(), 200);
  EXPECT_GT(report.generator_cpu, 0);
}

TEST(LoadGenerator, AServerThatIsNotThereIsAnErrorOfEveryCall) {
  std::string address;
  {
    const ScriptedServer server(
        [](int /*number*/, v1::RecommendResponse* /*response*/) { return grpc::Status::OK; });
    address = server.address();
  }
  LoadGenerator generator({.client = {.server = address}}, RequestsOf(1));
  const LoadReport report = generator.Run({.rate = 100,
                                           .arrivals = Arrivals::kConstant,
                                           .duration = absl::Milliseconds(100),
                                           .deadline = absl::Seconds(60)});
  EXPECT_EQ(report.errors.at(absl::StatusCode::kUnavailable).count, 10);
}

}  // namespace
}  // namespace nestrec
