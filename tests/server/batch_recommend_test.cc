// BatchRecommend over gRPC, in a server of this process.
#include "server/batch_recommend.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "absl/strings/str_cat.h"
#include "nestrec/v1/recommend.grpc.pb.h"
#include "server/client.h"
#include "server/rpc_status.h"
#include "server/server.h"
#include "server/session/session_options.h"
#include "server/status_details.h"
#include "tests/server/model_server.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kItems = 300;

v1::RecommendRequest RequestFor(const std::vector<int32_t>& history, int dim) {
  v1::RecommendRequest request;
  for (const int32_t item : history) request.add_history_item_ids(RandomModelItemId(item));
  if (dim != 0) request.set_dim(dim);
  return request;
}

// What an answer says, without what time and load decide.
std::string Essence(v1::RecommendResponse response) {
  response.mutable_served()->clear_timings();
  return response.ShortDebugString();
}

std::string Violations(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  std::string all;
  for (const FieldViolation& violation : FieldViolationsOf(status)) {
    absl::StrAppend(&all, violation.field, ": ", violation.description, "\n");
  }
  return all;
}

class BatchRecommendTest : public ModelServerTest {
 protected:
  static void SetUpTestSuite() {
    LoadModel({.sizes = {8, 24, 64}, .blocks = 2, .items = kItems},
              {.threads = 2, .sessions = true});
  }
  void SetUp() override { StartServer({.threads = 2}); }

  v1::BatchRecommendResponse MustBatch(const v1::BatchRecommendRequest& request) {
    auto response = client_->BatchRecommend(request);
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? *std::move(response) : v1::BatchRecommendResponse();
  }

  TempFolder folder_;
};

TEST_F(BatchRecommendTest, AnswersEveryRequestInOrderAsIfItHadComeAlone) {
  v1::BatchRecommendRequest batch;
  for (int i = 0; i < 100; ++i) {
    v1::RecommendRequest& request = *batch.add_requests();
    request = RequestFor({1 + i, 2 + 2 * i, 300 - i}, i % 3 == 0 ? 8 : i % 3 == 1 ? 24 : 64);
    request.set_k(1 + static_cast<uint32_t>(i) % 30);
    if (i % 7 == 0) request.add_exclude_item_ids("no such item");
  }
  const v1::BatchRecommendResponse response = MustBatch(batch);
  ASSERT_EQ(response.results_size(), 100);
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(response.results(i).has_response()) << i << response.results(i).ShortDebugString();
    const auto alone = client_->Recommend(batch.requests(i));
    ASSERT_TRUE(alone.ok()) << alone.status();
    EXPECT_EQ(Essence(response.results(i).response()), Essence(*alone)) << i;
  }
}

TEST_F(BatchRecommendTest, ABadRequestFailsAloneWithItsDetails) {
  v1::BatchRecommendRequest batch;
  *batch.add_requests() = RequestFor({1}, 64);
  *batch.add_requests() = RequestFor({2}, 63);
  *batch.add_requests() = RequestFor({3}, 64);
  batch.mutable_requests(2)->set_k(100'000);
  *batch.add_requests() = RequestFor({4}, 8);
  batch.mutable_requests(3)->set_user_id("u");  // this server keeps no sessions
  *batch.add_requests() = RequestFor({5}, 8);
  const v1::BatchRecommendResponse response = MustBatch(batch);
  ASSERT_EQ(response.results_size(), 5);
  EXPECT_EQ(response.results(0).response().items_size(), 10);
  EXPECT_EQ(response.results(4).response().items_size(), 10);
  for (const int bad : {1, 2}) {
    const absl::Status alone = client_->Recommend(batch.requests(bad)).status();
    ASSERT_TRUE(response.results(bad).has_error());
    EXPECT_EQ(FromProto(response.results(bad).error()), alone) << bad;
    EXPECT_EQ(FieldViolationsOf(alone).size(), 1u) << bad;
  }
  EXPECT_EQ(FromProto(response.results(3).error()).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(BatchRecommendTest, SessionsAreReadByEachRequest) {
  auto sessions = OpenSessions({.store = folder_.File("sessions")}, Log([](absl::string_view) {}));
  ASSERT_TRUE(sessions.ok()) << sessions.status();
  ServerOptions options{.threads = 1};
  options.sessions = *std::move(sessions);
  StartServer(options);
  v1::RecordEventsRequest events;
  events.set_user_id("u");
  for (const int32_t item : {5, 6, 7}) events.add_item_ids(RandomModelItemId(item));
  ASSERT_TRUE(client_->RecordEvents(events).ok());
  v1::BatchRecommendRequest batch;
  for (const char* user : {"u", "nobody", "u"}) {
    batch.add_requests()->set_user_id(user);
  }
  const v1::BatchRecommendResponse response = MustBatch(batch);
  ASSERT_EQ(response.results_size(), 3);
  EXPECT_EQ(response.results(0).response().served().session_event_count(), 3);
  EXPECT_EQ(response.results(1).response().served().session_event_count(), 0);
  EXPECT_EQ(Essence(response.results(2).response()), Essence(response.results(0).response()));
}

TEST_F(BatchRecommendTest, RefusesBatchesThatAreEmptyOrTooMuchAsAWhole) {
  v1::BatchRecommendRequest batch;
  EXPECT_THAT(Violations(client_->BatchRecommend(batch).status()),
              HasSubstr("requests: 0 entries; 1 to 100 are allowed"));
  for (int i = 0; i < 101; ++i) batch.add_requests();
  EXPECT_THAT(Violations(client_->BatchRecommend(batch).status()),
              HasSubstr("requests: 101 entries; 1 to 100 are allowed; send them in parts"));
  batch.mutable_requests()->RemoveLast();
  for (v1::RecommendRequest& request : *batch.mutable_requests()) request.set_k(101);
  EXPECT_THAT(Violations(client_->BatchRecommend(batch).status()),
              HasSubstr("requests: ask for 10100 items together (k); at most 10000"));
  for (v1::RecommendRequest& request : *batch.mutable_requests()) {
    request.set_k(10);
    for (int i = 0; i < 1001; ++i) request.add_exclude_item_ids("item-1");
  }
  EXPECT_THAT(Violations(client_->BatchRecommend(batch).status()),
              HasSubstr("requests: have 100100 item ids together; at most 100000"));
}

TEST_F(BatchRecommendTest, WhatTheQueueHasNoPlaceForFailsAloneWithAdvice) {
  // A worker that stands still: its clock holds it once the test says so.
  std::promise<void> reached, released;
  std::shared_future<void> until = released.get_future().share();
  std::atomic<bool> armed = false;
  std::atomic<int> calls = 0;
  ServerOptions options{.threads = 1, .queue_capacity = 2, .max_batch = 1};
  options.clock = [&, until] {
    if (armed && ++calls == 3) {
      reached.set_value();
      until.wait();
    }
    return std::chrono::steady_clock::now();
  };
  StartServer(options);
  armed = true;
  auto first = std::async(std::launch::async, [&] { return client_->Recommend({}).status(); });
  reached.get_future().wait();
  // The only tier with requests that waits has this many places.
  v1::BatchRecommendRequest batch;
  for (int i = 0; i < 10; ++i) *batch.add_requests() = RequestFor({i + 1}, 8);
  auto answered = std::async(std::launch::async, [&] { return client_->BatchRecommend(batch); });
  // The batch is answered only after those that do have a place, which wait for the worker.
  released.set_value();
  const auto response = answered.get();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_TRUE(first.get().ok());
  int served = 0;
  for (const v1::BatchRecommendResult& result : response->results()) {
    if (result.has_response()) {
      ++served;
      continue;
    }
    const absl::Status status = FromProto(result.error());
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_TRUE(RetryDelayOf(status).has_value());
  }
  EXPECT_GE(served, 1);
}

TEST_F(BatchRecommendTest, WhatWaitsWhenTheCallEndsIsDroppedBeforeItCostsAnything) {
  std::promise<void> reached, released;
  std::shared_future<void> until = released.get_future().share();
  std::atomic<bool> armed = false;
  std::atomic<int> calls = 0, since_armed = 0;
  ServerOptions options{.threads = 1, .max_batch = 1};
  options.clock = [&, until] {
    ++calls;
    if (armed && ++since_armed == 3) {
      reached.set_value();
      until.wait();
    }
    return std::chrono::steady_clock::now();
  };
  StartServer(options);
  v1::BatchRecommendRequest batch;
  for (int i = 0; i < 50; ++i) *batch.add_requests() = RequestFor({i + 1}, 64);
  // How often a batch that is served asks for the time.
  calls = 0;
  ASSERT_TRUE(client_->BatchRecommend(batch).ok());
  const int served = calls;

  armed = true;
  auto first = std::async(std::launch::async, [&] { return client_->Recommend({}).status(); });
  reached.get_future().wait();
  const auto stub = v1::RecommendService::NewStub(
      grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  v1::BatchRecommendResponse response;
  calls = 0;
  EXPECT_EQ(stub->BatchRecommend(&context, batch, &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  released.set_value();
  EXPECT_TRUE(first.get().ok());
  // Every one of them is done, or this would not return.
  server_->Shutdown(absl::Hours(1));
  EXPECT_LT(calls, served * 3 / 4) << "of " << served;
}

TEST_F(BatchRecommendTest, AServerThatShutsDownRefusesTheCall) {
  server_->Shutdown(absl::ZeroDuration());
  v1::BatchRecommendRequest batch;
  batch.add_requests();
  EXPECT_EQ(client_->BatchRecommend(batch).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace nestrec
