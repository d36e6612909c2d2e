// What a server says of its calls: ids, slow requests, the request log. In this process.
#include "server/call_log.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "nestrec/v1/recommend.grpc.pb.h"
#include "server/request_recorder.h"
#include "server/server.h"
#include "server/session/session_options.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using Json = nlohmann::json;

constexpr char kTrace[] = "4bf92f3577b34da6a3ce929d0e0e4736";

class CallLogTest : public ::testing::Test {
 protected:
  void Start(ObservabilityOptions observe, double share = 1) {
    const std::string path = folder_.File("model.safetensors");
    ASSERT_TRUE(RandomModel({.sizes = {8, 16, 64}}).Write(path).ok());
    auto snapshot = Snapshot::Load({.path = path, .sessions = true}, quiet_);
    ASSERT_TRUE(snapshot.ok()) << snapshot.status();
    auto sessions = OpenSessions({.store = folder_.File("sessions")}, quiet_);
    ASSERT_TRUE(sessions.ok()) << sessions.status();
    auto recorder =
        RequestRecorder::Open({.file = {.path = folder_.File("log")}, .share = share}, quiet_);
    ASSERT_TRUE(recorder.ok()) << recorder.status();
    recorder_ = *std::move(recorder);
    observe.log = &log_;
    observe.recorder = recorder_.get();
    ServerOptions options{.listen = "127.0.0.1:0"};
    options.sessions = *std::move(sessions);
    options.observe = observe;
    auto server = Server::Start(options, *snapshot);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = v1::RecommendService::NewStub(
        grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials()));
  }

  // The request id that came back.
  std::string Recommend(const v1::RecommendRequest& request,
                        const std::vector<std::pair<std::string, std::string>>& headers = {}) {
    grpc::ClientContext context;
    for (const auto& [name, value] : headers) context.AddMetadata(name, value);
    v1::RecommendResponse response;
    status_ = stub_->Recommend(&context, request, &response);
    std::string id;
    for (const auto& [name, value] :
         status_.ok() ? context.GetServerInitialMetadata() : context.GetServerTrailingMetadata()) {
      if (name == "x-request-id") id = std::string(value.data(), value.size());
    }
    response_ = response;
    return id;
  }

  void Record(const std::string& user, const std::vector<int>& items,
              const std::string& event_id = "") {
    grpc::ClientContext context;
    v1::RecordEventsRequest request;
    request.set_user_id(user);
    request.set_event_id(event_id);
    for (const int item : items) {
      request.add_item_ids(RandomModelItemId(item));
      request.add_timestamps()->set_seconds(1'700'000'000 + item);
    }
    v1::RecordEventsResponse response;
    const grpc::Status status = stub_->RecordEvents(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }

  std::vector<std::string> Lines() {
    // A call's line is written before its answer is sent.
    const MutexLock lock(mutex_);
    return lines_;
  }
  std::vector<Json> Recorded() {
    recorder_->Flush();
    std::vector<Json> records;
    for (const absl::string_view line :
         absl::StrSplit(*ReadFile(folder_.File("log")), '\n', absl::SkipEmpty())) {
      records.push_back(Json::parse(line.begin(), line.end()));
    }
    return records;
  }

  TempFolder folder_;
  Mutex mutex_;
  std::vector<std::string> lines_ ABSL_GUARDED_BY(mutex_);
  const Log log_{[this](absl::string_view line) {
                   const MutexLock lock(mutex_);
                   lines_.emplace_back(line);
                 },
                 {.format = LogFormat::kJson}};
  const Log quiet_{[](absl::string_view) {}};
  std::unique_ptr<RequestRecorder> recorder_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<v1::RecommendService::Stub> stub_;
  grpc::Status status_;
  v1::RecommendResponse response_;
};

TEST_F(CallLogTest, EveryAnswerCarriesTheClientsRequestIdOrANewOne) {
  Start({});
  EXPECT_EQ(Recommend({}, {{"x-request-id", "client-7"}}), "client-7");
  const std::string made = Recommend({});
  EXPECT_EQ(made.size(), 32u);
  EXPECT_NE(Recommend({}), made);
  EXPECT_EQ(Recommend({}, {{"x-request-id", "not a sane id"}}).size(), 32u);
  EXPECT_EQ(Recommend({}, {{"x-request-id", std::string(1000, 'x')}}).size(), 32u);
  v1::RecommendRequest bad;
  bad.set_k(0);
  EXPECT_EQ(Recommend(bad, {{"x-request-id", "client-8"}}), "client-8");
  EXPECT_FALSE(status_.ok());
  EXPECT_THAT(Lines(), IsEmpty());
}

TEST_F(CallLogTest, AnErrorCanBeTriedAgainByTheClientsGrpc) {
  Start({.slow_request = absl::Nanoseconds(1)});
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(R"({"methodConfig": [{"name": [{}], "retryPolicy": {
      "maxAttempts": 3, "initialBackoff": "0.001s", "maxBackoff": "0.001s", "backoffMultiplier": 1,
      "retryableStatusCodes": ["INVALID_ARGUMENT"]}}]})");
  stub_ = v1::RecommendService::NewStub(
      grpc::CreateCustomChannel(server_->address(), grpc::InsecureChannelCredentials(), arguments));
  v1::RecommendRequest bad;
  bad.set_k(0);
  Recommend(bad);
  EXPECT_EQ(status_.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(Lines(), SizeIs(3));
}

TEST_F(CallLogTest, ASlowRequestIsLoggedWithItsStagesAndWithoutIdsOfUsersOrItems) {
  Start({.slow_request = absl::Nanoseconds(1)});
  Record("secret user", {7, 8});
  v1::RecommendRequest request;
  request.set_user_id("secret user");
  request.add_history_item_ids(RandomModelItemId(9));
  request.set_tier("silver");
  request.set_k(3);
  Recommend(request, {{"x-request-id", "id-1"},
                      {"traceparent", absl::StrCat("00-", kTrace, "-00f067aa0ba902b7-01")}});
  ASSERT_TRUE(status_.ok()) << status_.error_message();
  const std::vector<std::string> lines = Lines();
  ASSERT_THAT(lines, SizeIs(2));  // RecordEvents was slow, too
  const Json line = Json::parse(lines[1]);
  EXPECT_EQ(line["event"], "slow_request");
  EXPECT_EQ(line["level"], "warning");
  EXPECT_EQ(line["request_id"], "id-1");
  EXPECT_EQ(line["trace_id"], kTrace);
  EXPECT_EQ(line["method"], "Recommend");
  EXPECT_EQ(line["code"], "OK");
  EXPECT_EQ(line["k"], 3);
  EXPECT_EQ(line["history"], 3);
  EXPECT_EQ(line["dim"], 16);
  EXPECT_EQ(line["tier"], "silver");
  EXPECT_EQ(line["why"], "tier");
  EXPECT_GT(line["session_bytes"].get<int64_t>(), 100);
  EXPECT_GE(line["total_ms"].get<double>(), line["queue_ms"].get<double>() +
                                                line["encode_ms"].get<double>() +
                                                line["search_ms"].get<double>() - 0.002);
  for (const std::string& text : lines) {
    EXPECT_THAT(text, Not(HasSubstr("secret")));
    EXPECT_THAT(text, Not(HasSubstr("item")));
  }
}

TEST_F(CallLogTest, ASlowBatchIsLoggedWithTheStagesOfItsSlowestRequest) {
  Start({.slow_request = absl::Nanoseconds(1)});
  grpc::ClientContext context;
  v1::BatchRecommendRequest batch;
  for (int i = 0; i < 3; ++i) {
    batch.add_requests()->set_tier("silver");
    batch.mutable_requests(i)->set_k(4);
    batch.mutable_requests(i)->add_history_item_ids(RandomModelItemId(9));
  }
  batch.add_requests()->set_tier("no such tier");
  v1::BatchRecommendResponse response;
  ASSERT_TRUE(stub_->BatchRecommend(&context, batch, &response).ok());
  const std::vector<std::string> lines = Lines();
  ASSERT_THAT(lines, SizeIs(1));
  const Json line = Json::parse(lines[0]);
  EXPECT_EQ(line["event"], "slow_request");
  EXPECT_EQ(line["method"], "BatchRecommend");
  EXPECT_EQ(line["requests"], 4);
  EXPECT_EQ(line["k"], 4);
  EXPECT_EQ(line["history"], 1);
  EXPECT_EQ(line["dim"], 16);
  EXPECT_EQ(line["tier"], "silver");
  EXPECT_GT(line["encode_ms"].get<double>() + line["search_ms"].get<double>(), 0);
  EXPECT_GE(line["total_ms"].get<double>(), line["queue_ms"].get<double>() +
                                                line["encode_ms"].get<double>() +
                                                line["search_ms"].get<double>() - 0.002);
}

TEST_F(CallLogTest, ASlowChangeIsLoggedWithItsWaitAndItsWork) {
  Start({.slow_request = absl::Nanoseconds(1)});
  Record("somebody", {7, 8});
  const std::vector<std::string> lines = Lines();
  ASSERT_THAT(lines, SizeIs(1));
  const Json line = Json::parse(lines[0]);
  EXPECT_EQ(line["method"], "RecordEvents");
  EXPECT_GT(line["work_ms"].get<double>(), 0);
  EXPECT_GE(line["total_ms"].get<double>(),
            line["queue_ms"].get<double>() + line["work_ms"].get<double>() - 0.002);
}

TEST_F(CallLogTest, AFloodOfSlowRequestsIsAFewLinesThatSayHowManyThereWere) {
  Start({.slow_request = absl::Nanoseconds(1)});
  constexpr int kCalls = 200;
  const absl::Time begun = absl::Now();
  for (int i = 0; i < kCalls; ++i) Recommend({});
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begun);
  const std::vector<std::string> lines = Lines();
  EXPECT_GE(lines.size(), static_cast<size_t>(CallLog::kBurst));
  EXPECT_LE(static_cast<double>(lines.size()), CallLog::kBurst + CallLog::kPerSecond * seconds + 1);
}

TEST_F(CallLogTest, TheRequestLogHasWhatWasAskedAnsweredAndRecorded) {
  Start({});
  Record("u1", {7, 8}, "call 1");
  Record("u1", {7, 8}, "call 1");  // again: counts once
  v1::RecommendRequest request;
  request.set_user_id("u1");
  request.add_history_item_ids(RandomModelItemId(2));
  request.set_k(2);
  Recommend(request, {{"x-request-id", "id-1"}});
  grpc::ClientContext context;
  v1::ForgetUserRequest forget;
  forget.set_user_id("u1");
  v1::ForgetUserResponse forgotten;
  ASSERT_TRUE(stub_->ForgetUser(&context, forget, &forgotten).ok());
  request.set_k(0);
  Recommend(request);  // refused: not in the log
  const std::vector<Json> records = Recorded();
  ASSERT_THAT(records, SizeIs(3));
  EXPECT_EQ(records[0]["type"], "events");
  EXPECT_EQ(records[0]["user_id"], "u1");
  EXPECT_EQ(records[0]["events"], Json::parse(R"([{"item_id":"item-7","time_ms":1700000007000},
                            {"item_id":"item-8","time_ms":1700000008000}])"));
  const Json& served = records[1];
  EXPECT_EQ(served["type"], "request");
  EXPECT_EQ(served["request_id"], "id-1");
  EXPECT_EQ(served["user_id"], "u1");
  EXPECT_EQ(served["history"], Json::parse(R"(["item-7","item-8","item 2 with spaces"])"));
  EXPECT_EQ(served["k"], 2);
  EXPECT_EQ(served["dim"], 64);
  EXPECT_EQ(served["tier"], "gold");
  EXPECT_EQ(served["why"], "default");
  EXPECT_EQ(served["exact"], true);
  EXPECT_THAT(served["items"], SizeIs(2));
  EXPECT_EQ(records[2]["type"], "forget");
  EXPECT_EQ(records[2]["user_id"], "u1");
}

TEST_F(CallLogTest, AVectorIsLoggedAsWhatItIs) {
  Start({.slow_request = absl::Nanoseconds(1)}, 1);
  Record("u", {7, 8});
  v1::EncodeRequest request;
  request.set_user_id("u");
  request.add_history_item_ids(RandomModelItemId(9));
  request.set_tier("silver");
  grpc::ClientContext context;
  v1::EncodeResponse response;
  const grpc::Status status = stub_->Encode(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_THAT(Lines(), SizeIs(2));
  const Json line = Json::parse(Lines()[1]);
  EXPECT_EQ(line["method"], "Encode");
  EXPECT_EQ(line["history"], 3);
  EXPECT_EQ(line["dim"], 16);
  EXPECT_FALSE(line.contains("k"));
  const std::vector<Json> records = Recorded();
  ASSERT_THAT(records, SizeIs(2));
  EXPECT_EQ(records[1]["type"], "encode");
  EXPECT_EQ(records[1]["user_id"], "u");
  EXPECT_EQ(records[1]["history"],
            Json({RandomModelItemId(7), RandomModelItemId(8), RandomModelItemId(9)}));
  EXPECT_EQ(records[1]["dim"], 16);
  EXPECT_EQ(records[1]["model_version"], response.served().model_version());
  EXPECT_FALSE(records[1].contains("items"));
}

TEST_F(CallLogTest, TheRequestLogHasAllOfAUserOrNothing) {
  Start({}, 0.5);
  for (int user = 0; user < 40; ++user) {
    for (int call = 0; call < 3; ++call) Record(absl::StrCat("u", user), {1 + call});
  }
  std::map<std::string, int> calls;
  for (const Json& record : Recorded()) ++calls[record["user_id"].get<std::string>()];
  EXPECT_GT(calls.size(), 8u);
  EXPECT_LT(calls.size(), 32u);
  for (const auto& [user, count] : calls) {
    EXPECT_EQ(count, 3) << user;
    EXPECT_TRUE(recorder_->SamplesUser(user));
  }
  for (int i = 0; i < 200; ++i) Recommend({});
  int without_user = 0;
  for (const Json& record : Recorded()) without_user += record.contains("user_id") ? 0 : 1;
  EXPECT_NEAR(without_user, 100, 40);
}

}  // namespace
}  // namespace nestrec
