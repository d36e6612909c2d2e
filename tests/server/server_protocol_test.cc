// What a server is beside its answers: errors, limits, health, reflection, overload, the end.
#include "base/version.h"
#include "tests/server/server_fixture.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

TEST_F(ServerTest, NamesBadFieldsInTheStatusDetails) {
  const auto violations_of = [&](const v1::RecommendRequest& request) {
    const absl::Status status = client_->Recommend(request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return FieldViolationsOf(status);
  };
  v1::RecommendRequest request;
  request.set_k(0);
  EXPECT_EQ(violations_of(request), (std::vector<FieldViolation>{{"k", "0 is not in 1 to 1000"}}));
  request.set_k(1'000'000'000);
  EXPECT_EQ(violations_of(request),
            (std::vector<FieldViolation>{{"k", "1000000000 is not in 1 to 1000"}}));
  request.clear_k();
  request.set_dim(63);
  EXPECT_EQ(
      violations_of(request),
      (std::vector<FieldViolation>{{"dim", "63 is not one of the sizes served here: 8,24,64"}}));
  request.set_tier("platinum");
  EXPECT_EQ(violations_of(request),
            (std::vector<FieldViolation>{
                {"tier", "\"platinum\" is not one of the tiers here: gold, graph"}}));
}

TEST_F(ServerTest, AHistoryOfAMillionIsRefusedAndDoesNoHarm) {
  v1::RecommendRequest request;
  for (int i = 0; i < 1'000'000; ++i) {
    request.add_history_item_ids(absl::StrCat("B0", 10'000'000 + i));
  }
  const absl::Status status = client_->Recommend(request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(status.message(), HasSubstr("1000000 entries; at most 10000"));
  EXPECT_EQ(MustRecommend({}).items_size(), 10);
}

TEST_F(ServerTest, AMessageBeyondTheLimitIsRefused) {
  v1::RecommendRequest request;
  request.add_history_item_ids(std::string(17 << 20, 'x'));
  EXPECT_EQ(client_->Recommend(request).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(MustRecommend({}).items_size(), 10);
}

TEST_F(ServerTest, DescribesItsModel) {
  const auto info = client_->GetModelInfo();
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->model_name(), "random");
  EXPECT_EQ(info->model_version(), snapshot().version());
  EXPECT_EQ(info->program_version(), kVersion);
  EXPECT_EQ(info->item_count(), kItems);
  EXPECT_EQ(info->max_len(), kMaxLen);
  EXPECT_EQ(info->mixer(), "lru");
  EXPECT_TRUE(info->constant_time_step());
  ASSERT_EQ(info->sizes_size(), 3);
  EXPECT_EQ(info->sizes(1).dim(), 24);
  EXPECT_LT(info->sizes(1).model_bytes(), info->sizes(2).model_bytes());
  EXPECT_GE(info->sizes(2).index_bytes(), kItems * 64 * 4);
  // The server has warmed up, so that something is known of every width.
  for (const v1::SizeInfo& size : info->sizes()) {
    const v1::SizeCosts& costs = size.costs();
    EXPECT_GT(costs.encode_p50().nanos(), 0);
    EXPECT_GT(costs.search_p50().nanos(), 0);
    EXPECT_GE(costs.encode_p95().nanos() + 1'000'000'000 * costs.encode_p95().seconds(),
              costs.encode_p50().nanos() + 1'000'000'000 * costs.encode_p50().seconds());
  }
  ASSERT_EQ(info->sizes(2).test().at_size(), 4);
  EXPECT_EQ(info->sizes(2).test().at(1).k(), 10);
  EXPECT_NEAR(info->sizes(2).test().at(1).recall(), 0.064, 1e-9);
  ASSERT_EQ(info->tiers_size(), 2);
  EXPECT_EQ(info->tiers(1).name(), "graph");
  EXPECT_EQ(info->tiers(1).index(), "HNSW16");
  EXPECT_FALSE(info->tiers(1).exact());
  EXPECT_EQ(info->default_tier(), "gold");
}

TEST_F(ServerTest, HealthIsReportedPerService) {
  EXPECT_EQ(CheckHealth(channel_, ""), "SERVING");
  EXPECT_EQ(CheckHealth(channel_, "nestrec.v1.RecommendService"), "SERVING");
  EXPECT_EQ(CheckHealth(channel_, "no.such.Service"), std::to_string(grpc::StatusCode::NOT_FOUND));
}

TEST_F(ServerTest, ReflectionListsAndDescribesTheServices) {
  const std::string method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  const RawReply services = RawStreamCall(channel_, method, BytesField(7, ""));
  ASSERT_TRUE(services.status.ok()) << services.status.error_message();
  EXPECT_THAT(services.bytes, HasSubstr("nestrec.v1.RecommendService"));
  EXPECT_THAT(services.bytes, HasSubstr("grpc.health.v1.Health"));
  const RawReply file =
      RawStreamCall(channel_, method, BytesField(4, "nestrec.v1.RecommendRequest"));
  ASSERT_TRUE(file.status.ok()) << file.status.error_message();
  EXPECT_THAT(file.bytes, HasSubstr("history_item_ids"));
  const RawReply health = RawStreamCall(channel_, method, BytesField(4, "grpc.health.v1.Health"));
  ASSERT_TRUE(health.status.ok()) << health.status.error_message();
  EXPECT_THAT(health.bytes, HasSubstr("HealthCheckResponse"));
}

TEST_F(ServerTest, AnExpiredDeadlineIsNotServed) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() - std::chrono::seconds(1));
  v1::RecommendResponse response;
  const auto stub = v1::RecommendService::NewStub(channel_);
  EXPECT_EQ(stub->Recommend(&context, {}, &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(ServerTest, ASecondServerOnThePortIsRefused) {
  const auto second = Server::Start({.listen = server_->address()}, shared_snapshot());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(second.status().message(),
              HasSubstr(absl::StrCat(server_->address(), ": the port is in use")));
}

TEST_F(ServerTest, RefusesBadOptions) {
  EXPECT_EQ(Server::Start({.listen = "nonsense"}, shared_snapshot()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      Server::Start({.listen = "127.0.0.1:0", .threads = 0}, shared_snapshot()).status().code(),
      absl::StatusCode::kInvalidArgument);
}

TEST_F(ServerTest, TheClientSaysHowToStartAServerWhenNoneAnswers) {
  const std::string address = server_->address();
  server_->Shutdown(absl::ZeroDuration());
  const RecommendClient client({.server = address, .timeout = absl::Seconds(60)});
  const absl::Status status = client.Recommend({}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr(absl::StrCat("no server answers at ", address)));
  EXPECT_THAT(status.message(), HasSubstr("nestrec serve --model"));
}

// A clock that, once armed, holds the thread of its third caller until released. The first request
// makes call 1 on arrival, and the only worker makes call 2 when it takes it up and call 3 when it
// begins.
class HoldingClock {
 public:
  Clock AsClock() {
    return [this] {
      if (armed_ && ++calls_ == 3) {
        reached_.set_value();
        released_.get_future().wait();
      }
      return std::chrono::steady_clock::now();
    };
  }
  void Arm() { armed_ = true; }
  void WaitUntilHeld() { reached_.get_future().wait(); }
  void Release() { released_.set_value(); }

 private:
  std::atomic<bool> armed_ = false;
  std::atomic<int> calls_ = 0;
  std::promise<void> reached_, released_;
};

TEST_F(ServerTest, AFullQueueTurnsAwayWithRetryAdvice) {
  HoldingClock clock;
  Start({.threads = 1, .queue_capacity = 1, .clock = clock.AsClock()});
  clock.Arm();
  const auto call = [&] { return client_->Recommend({}).status(); };
  auto first = std::async(std::launch::async, call);
  clock.WaitUntilHeld();
  // The worker holds the first; of these two one waits and one is too many. Which, is the network's
  // choice.
  auto second = std::async(std::launch::async, call);
  auto third = std::async(std::launch::async, call);
  std::future<absl::Status>* refused = nullptr;
  for (int i = 0; refused == nullptr && i < 60'000; ++i) {
    for (auto* future : {&second, &third}) {
      if (future->wait_for(std::chrono::milliseconds(1)) == std::future_status::ready)
        refused = future;
    }
  }
  ASSERT_NE(refused, nullptr);
  const absl::Status status = refused->get();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_TRUE(RetryDelayOf(status).has_value());
  clock.Release();
  EXPECT_TRUE(first.get().ok());
  EXPECT_TRUE((refused == &second ? third : second).get().ok());
}

TEST_F(ServerTest, DrainSaysNotServingRefusesNewCallsAndFinishesRunningOnes) {
  HoldingClock clock;
  Start({.threads = 1, .queue_capacity = 4, .clock = clock.AsClock()});
  clock.Arm();
  HealthWatch watch(channel_, "nestrec.v1.RecommendService");
  ASSERT_EQ(watch.Next(), "SERVING");
  auto running = std::async(std::launch::async, [&] { return client_->Recommend({}).status(); });
  clock.WaitUntilHeld();

  auto shutdown = std::async(std::launch::async, [&] { server_->Shutdown(absl::Hours(1)); });
  EXPECT_EQ(watch.Next(), "NOT_SERVING");
  absl::Status refused;
  while (refused.ok()) {  // NOT_SERVING comes first, then new calls are refused
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    v1::GetModelInfoResponse response;
    refused = FromGrpcStatus(
        v1::RecommendService::NewStub(channel_)->GetModelInfo(&context, {}, &response));
  }
  EXPECT_EQ(refused, absl::UnavailableError("the server is shutting down"));
  EXPECT_NE(shutdown.wait_for(std::chrono::seconds(0)), std::future_status::ready);

  clock.Release();
  EXPECT_TRUE(running.get().ok());
  shutdown.get();  // does not wait for the watch or for idle connections
}

TEST_F(ServerTest, DrainCancelsWhatOutlastsTheGrace) {
  HoldingClock clock;
  Start({.threads = 1, .queue_capacity = 4, .clock = clock.AsClock()});
  clock.Arm();
  auto running = std::async(std::launch::async, [&] { return client_->Recommend({}).status(); });
  clock.WaitUntilHeld();
  auto shutdown = std::async(std::launch::async, [&] { server_->Shutdown(absl::ZeroDuration()); });
  EXPECT_FALSE(running.get().ok());
  clock.Release();
  shutdown.get();
}

}  // namespace
}  // namespace nestrec
