// Sessions over gRPC, in a server of this process.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "index/score.h"
#include "server/client.h"
#include "server/server.h"
#include "server/session/session_options.h"
#include "server/status_details.h"
#include "tests/server/model_server.h"
#include "tests/testing/random_model.h"
#include "tests/testing/temp_folder.h"

namespace nestrec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kItems = 300;
constexpr int kMaxLen = 10;

class SessionRpcTest : public ModelServerTest {
 protected:
  static void SetUpTestSuite() {
    LoadModel({.sizes = {8, 24, 64}, .blocks = 2, .items = kItems, .max_len = kMaxLen},
              {.threads = 2, .sessions = true});
  }

  void Start(bool with_sessions) {
    ServerOptions options{.threads = 2};
    if (with_sessions) {
      auto sessions = OpenSessions({.store = folder_.File("sessions"), .events = 20},
                                   Log([](absl::string_view) {}));
      ASSERT_TRUE(sessions.ok()) << sessions.status();
      options.sessions = *std::move(sessions);
    }
    StartServer(std::move(options));
  }
  void SetUp() override { Start(true); }

  static v1::RecordEventsRequest Events(const std::string& user, const std::vector<int32_t>& items,
                                        const std::string& event_id = "") {
    v1::RecordEventsRequest request;
    request.set_user_id(user);
    for (const int32_t item : items) request.add_item_ids(RandomModelItemId(item));
    request.set_event_id(event_id);
    return request;
  }
  v1::RecordEventsResponse Record(const std::string& user, const std::vector<int32_t>& items,
                                  const std::string& event_id = "") {
    const auto response = client_->RecordEvents(Events(user, items, event_id));
    EXPECT_TRUE(response.ok()) << response.status();
    return response.value_or(v1::RecordEventsResponse());
  }
  v1::RecommendResponse Recommend(const v1::RecommendRequest& request) {
    auto response = client_->Recommend(request);
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? *std::move(response) : v1::RecommendResponse();
  }

  // The answer that the user's whole history gives when it is sent along.
  void ExpectAsStateless(const std::string& user, const std::vector<int32_t>& history, int dim,
                         const std::vector<int32_t>& more = {}) {
    v1::RecommendRequest with_session;
    with_session.set_user_id(user);
    v1::RecommendRequest stateless;
    for (const int32_t item : history) {
      stateless.add_history_item_ids(RandomModelItemId(item));
    }
    for (const int32_t item : more) {
      with_session.add_history_item_ids(RandomModelItemId(item));
      stateless.add_history_item_ids(RandomModelItemId(item));
    }
    for (v1::RecommendRequest* request : {&with_session, &stateless}) {
      request->set_dim(dim);
      request->set_k(20);
    }
    const v1::RecommendResponse answer = Recommend(with_session);
    const v1::RecommendResponse expected = Recommend(stateless);
    ASSERT_EQ(answer.items_size(), expected.items_size());
    for (int i = 0; i < answer.items_size(); ++i) {
      EXPECT_EQ(answer.items(i).item_id(), expected.items(i).item_id()) << i;
      EXPECT_NEAR(answer.items(i).score(), expected.items(i).score(), 1e-3) << i;
    }
    EXPECT_EQ(answer.served().session_event_count(), static_cast<int64_t>(history.size()));
    EXPECT_EQ(expected.served().session_event_count(), 0);
  }

  // The violated fields of a call that must be refused.
  template <typename Response>
  static std::vector<std::string> Violations(const absl::StatusOr<Response>& response) {
    EXPECT_EQ(response.status().code(), absl::StatusCode::kInvalidArgument) << response.status();
    std::vector<std::string> violations;
    for (const FieldViolation& violation : FieldViolationsOf(response.status())) {
      violations.push_back(absl::StrCat(violation.field, ": ", violation.description));
    }
    return violations;
  }

  TempFolder folder_;
};

TEST_F(SessionRpcTest, ASessionAnswersAsItsHistoryWould) {
  std::vector<int32_t> history;
  for (int32_t item = 1; item <= 15; ++item) {  // beyond max_len, too
    Record("u", {item * 7 % 50 + 1});
    history.push_back(item * 7 % 50 + 1);
    ExpectAsStateless("u", history, item % 3 == 0 ? 64 : item % 3 == 1 ? 8 : 24);
  }
  ExpectAsStateless("u", history, 64, {60, 61});
  ExpectAsStateless("u", history, 64);
  ExpectAsStateless("nobody", {}, 64, {60, 61});
  ExpectAsStateless("nobody", {}, 8);
}

TEST_F(SessionRpcTest, SessionsSurviveTheServer) {
  Record("u", {1, 2, 3});
  server_.reset();
  Start(true);
  ExpectAsStateless("u", {1, 2, 3}, 24);
}

TEST_F(SessionRpcTest, WhatASessionHasSeenDoesNotComeBackUnlessAskedFor) {
  v1::RecommendRequest request;
  request.set_user_id("u");
  request.set_k(kItems);
  Record("u", {4, 5, 6});
  std::set<std::string> ids;
  const v1::RecommendResponse response = Recommend(request);
  for (const auto& item : response.items()) ids.insert(item.item_id());
  EXPECT_EQ(ids.size(), static_cast<size_t>(kItems) - 3);
  for (const int32_t seen : {4, 5, 6}) EXPECT_FALSE(ids.contains(RandomModelItemId(seen)));
  request.set_include_seen(true);
  EXPECT_EQ(Recommend(request).items_size(), kItems);
}

TEST_F(SessionRpcTest, ARetriedCallCountsOnce) {
  EXPECT_FALSE(Record("u", {1}, "call").duplicate());
  const v1::RecordEventsResponse again = Record("u", {1}, "call");
  EXPECT_TRUE(again.duplicate());
  EXPECT_EQ(again.event_count(), 1);
  EXPECT_EQ(Record("u", {1}, "").event_count(), 2);
}

TEST_F(SessionRpcTest, UnknownItemsAreRecordedAndReported) {
  v1::RecordEventsRequest request = Events("u", {1});
  request.add_item_ids("gone");
  request.add_item_ids("gone");
  request.add_item_ids("away");
  const auto response = client_->RecordEvents(request);
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->event_count(), 4);
  EXPECT_EQ(response->unknown_item_count(), 2u);
  EXPECT_THAT(response->unknown_item_ids(), ElementsAre("gone", "away"));
  v1::RecommendRequest recommend;
  recommend.set_user_id("u");
  EXPECT_EQ(Recommend(recommend).served().session_event_count(), 4);
}

TEST_F(SessionRpcTest, ForgetUserEndsASession) {
  Record("u", {1, 2});
  v1::ForgetUserRequest request;
  request.set_user_id("u");
  EXPECT_TRUE(client_->ForgetUser(request)->existed());
  EXPECT_FALSE(client_->ForgetUser(request)->existed());
  ExpectAsStateless("u", {}, 64);
  Record("u", {9, 8});
  ExpectAsStateless("u", {9, 8}, 64);
}

TEST_F(SessionRpcTest, RecordingAndAnsweringAtOnceKeepsEveryEvent) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i) {
        Record("shared", {1 + (t * 25 + i) % 50}, absl::StrCat(t, ":", i));
        v1::RecommendRequest request;
        request.set_user_id("shared");
        request.set_dim(i % 2 == 0 ? 8 : 64);
        EXPECT_GT(Recommend(request).served().session_event_count(), 0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Record("shared", {1}).event_count(), 101);
}

TEST_F(SessionRpcTest, NamesBadFields) {
  EXPECT_THAT(Violations(client_->RecordEvents({})),
              ElementsAre("user_id: is empty", "item_ids: 0 entries; 1 to 1000 are allowed"));
  v1::RecordEventsRequest request = Events(std::string(257, 'u'), {1, 2}, std::string(129, 'e'));
  request.add_item_ids("");
  request.add_timestamps()->set_seconds(5);
  EXPECT_THAT(
      Violations(client_->RecordEvents(request)),
      ElementsAre("user_id: has 257 bytes; at most 256 are allowed", "item_ids[2]: is empty",
                  "timestamps: 1 entries, but item_ids has 3; send one for each, or none",
                  "event_id: has 129 bytes; at most 128 are allowed"));
  request = Events("u", {1});
  request.add_timestamps()->set_nanos(-1);
  EXPECT_THAT(Violations(client_->RecordEvents(request)),
              ElementsAre(HasSubstr("timestamps[0]: 0 seconds and -1 nanoseconds")));
  EXPECT_THAT(Violations(client_->RecordEvents(Events("u", std::vector<int32_t>(1001, 1)))),
              ElementsAre("item_ids: 1001 entries; 1 to 1000 are allowed; send them in parts"));
  EXPECT_THAT(Violations(client_->ForgetUser({})), ElementsAre("user_id: is empty"));
  v1::RecommendRequest recommend;
  recommend.set_user_id(std::string(257, 'u'));
  EXPECT_THAT(Violations(client_->Recommend(recommend)),
              ElementsAre("user_id: has 257 bytes; at most 256 are allowed"));
}

TEST_F(SessionRpcTest, AServerWithoutSessionsSaysSo) {
  server_.reset();
  Start(false);
  v1::RecommendRequest recommend;
  recommend.set_user_id("u");
  v1::ForgetUserRequest forget;
  forget.set_user_id("u");
  for (const absl::Status& status :
       {client_->Recommend(recommend).status(), client_->RecordEvents(Events("u", {1})).status(),
        client_->ForgetUser(forget).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("--sessions"));
  }
  EXPECT_TRUE(client_->Recommend({}).ok());
}

TEST(SessionOptionsTest, RefusesWhatCannotWork) {
  const auto message = [](const SessionOptions& options) {
    return std::string(CheckSessionOptions(options).message());
  };
  EXPECT_THAT(message({.store = "redis://host:0"}), HasSubstr("port"));
  EXPECT_THAT(message({.store = "http://host"}), HasSubstr("no known scheme"));
  EXPECT_THAT(message({.store = ""}), HasSubstr("no store"));
  EXPECT_THAT(message({.store = "folder", .events = 0}), HasSubstr("sessions of 0 events"));
  EXPECT_TRUE(CheckSessionOptions({.store = "folder"}).ok());
  EXPECT_FALSE(KeepsSessions({}));
  EXPECT_THAT(std::string(CheckSessionsFit({.store = "folder", .events = 20}, 50).message()),
              HasSubstr("keep 20 events, but the model reads the last 50"));
  EXPECT_TRUE(CheckSessionsFit({.store = "none", .events = 20}, 50).ok());
}

// As a volume that has become read-only while it is served from.
class ForbiddenLog : public SessionLog {
 public:
  absl::StatusOr<SessionAppended> Append(absl::string_view, std::span<const SessionEvent>,
                                         absl::string_view) override {
    return Refused();
  }
  absl::StatusOr<SessionTail> Read(absl::string_view, int64_t) override { return Refused(); }
  absl::StatusOr<bool> Forget(absl::string_view) override { return Refused(); }
  bool remote() const override { return false; }
  SessionLogStats stats() const override { return {}; }
  size_t BytesOf(absl::string_view) const override { return 0; }
  std::string name() const override { return "/volume"; }

 private:
  static absl::Status Refused() {
    return absl::PermissionDeniedError("cannot write /volume/events: Read-only file system");
  }
};

TEST_F(SessionRpcTest, AStoreThatMayNotBeWrittenIsNotTheCallersFault) {
  ServerOptions options{.threads = 2};
  options.sessions = std::make_unique<SessionManager>(std::make_unique<ForbiddenLog>(), 1 << 20);
  StartServer(std::move(options));
  v1::RecommendRequest request;
  request.set_user_id("u");
  v1::ForgetUserRequest forget;
  forget.set_user_id("u");
  for (const absl::Status& status :
       {client_->RecordEvents(Events("u", {1})).status(), client_->Recommend(request).status(),
        client_->ForgetUser(forget).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("Read-only file system"));
    EXPECT_TRUE(RetryDelayOf(status).has_value());
  }
}

}  // namespace
}  // namespace nestrec
