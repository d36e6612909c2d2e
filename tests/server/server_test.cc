#include "server/server.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <map>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "index/item_index.h"
#include "index/score.h"
#include "nestrec/v1/recommend.grpc.pb.h"
#include "server/client.h"
#include "server/rpc_status.h"
#include "server/status_details.h"
#include "tests/server/raw_rpc.h"
#include "tests/testing/random_model.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kItems = 500;
constexpr int kMaxLen = 10;

class ServerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const std::string path = ::testing::TempDir() + "/server_test.safetensors";
    ASSERT_TRUE(
        RandomModel({.sizes = {8, 24, 64}, .blocks = 2, .items = kItems, .max_len = kMaxLen})
            .Write(path)
            .ok());
    auto loaded = Snapshot::Load(
        {.path = path,
         .tiers = {.tiers = {{.name = "gold", .dim = 64, .index = {}},
                             {.name = "graph", .dim = 24, .index = {"HNSW16", "efSearch=64"}}},
                   .default_tier = "gold"},
         .threads = 2},
        Log([](absl::string_view) {}));
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    snapshot_ = new std::shared_ptr<const Snapshot>(*std::move(loaded));
  }
  static void TearDownTestSuite() {
    delete snapshot_;
    snapshot_ = nullptr;
  }

  void Start(ServerOptions options) {
    options.listen = "127.0.0.1:0";
    auto server = Server::Start(options, *snapshot_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<RecommendClient>(
        RecommendClient::Options{.server = server_->address(), .timeout = absl::Seconds(60)});
    channel_ = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
  }
  void SetUp() override { Start({.threads = 2}); }

  // Ranks everything by the definition: z at `dim`, canonical scores, ties by number.
  static std::vector<ScoredItem> BruteForce(const std::vector<int32_t>& history, int dim, int64_t k,
                                            const std::set<int32_t>& excluded) {
    const Snapshot& snapshot = **snapshot_;
    const ModelView& view = snapshot.checkpoint().view();
    const int levels = *view.sizes.LevelsOf(dim);
    std::vector<float> z(static_cast<size_t>(dim));
    const History span(history);
    EXPECT_TRUE(snapshot.encoder().Encode(std::span(&span, 1), levels, z).ok());
    const LevelVectors vectors{.sizes = view.sizes, .rows = view.item_rows, .levels = view.items};
    std::vector<ScoredItem> all;
    for (int32_t item = 1; item <= kItems; ++item) {
      if (!excluded.contains(item)) {
        all.push_back({item, CanonicalScore(z, vectors, levels, item)});
      }
    }
    std::sort(all.begin(), all.end(), RanksBefore);
    all.resize(std::min(all.size(), static_cast<size_t>(k)));
    return all;
  }

  static v1::RecommendRequest RequestFor(const std::vector<int32_t>& history) {
    v1::RecommendRequest request;
    for (const int32_t item : history) {
      request.add_history_item_ids(RandomModelItemId(item));
    }
    return request;
  }

  static void ExpectItems(const v1::RecommendResponse& response,
                          const std::vector<ScoredItem>& expected) {
    ASSERT_EQ(response.items_size(), static_cast<int>(expected.size()));
    for (int i = 0; i < response.items_size(); ++i) {
      const ScoredItem& item = expected[static_cast<size_t>(i)];
      EXPECT_EQ(response.items(i).item_id(), RandomModelItemId(item.item)) << i;
      EXPECT_EQ(response.items(i).score(), item.score) << i;
    }
  }

  v1::RecommendResponse MustRecommend(const v1::RecommendRequest& request) {
    auto response = client_->Recommend(request);
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? *std::move(response) : v1::RecommendResponse();
  }

  static std::shared_ptr<const Snapshot>* snapshot_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<RecommendClient> client_;
  std::shared_ptr<grpc::Channel> channel_;
};

std::shared_ptr<const Snapshot>* ServerTest::snapshot_ = nullptr;

TEST_F(ServerTest, EqualsBruteForceAtEveryDim) {
  for (const std::vector<int32_t>& history : std::vector<std::vector<int32_t>>{
           {7}, {3, 1, 2}, {9, 9, 9, 4}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}) {
    for (const int dim : {8, 24, 64}) {
      v1::RecommendRequest request = RequestFor(history);
      request.set_k(20);
      request.set_dim(dim);
      const v1::RecommendResponse response = MustRecommend(request);
      ExpectItems(response, BruteForce(history, dim, 20, {history.begin(), history.end()}));
      EXPECT_EQ(response.served().dim(), dim);
      EXPECT_EQ(response.served().tier(), "");
      EXPECT_EQ(response.served().why(), v1::WIDTH_REASON_EXPLICIT);
      EXPECT_TRUE(response.served().exact());
      EXPECT_EQ(response.served().model_version(), (*snapshot_)->version());
    }
  }
}

TEST_F(ServerTest, AnEmptyHistoryGetsTheLearnedPrior) {
  ExpectItems(MustRecommend({}), BruteForce({}, 64, 10, {}));
}

TEST_F(ServerTest, UnknownItemsAreSkippedAndReported) {
  v1::RecommendRequest request = RequestFor({4, 6});
  request.add_history_item_ids("no such item");
  request.add_exclude_item_ids("nor this");
  const v1::RecommendResponse response = MustRecommend(request);
  ExpectItems(response, BruteForce({4, 6}, 64, 10, {4, 6}));
  ASSERT_EQ(response.unknown_item_ids_size(), 1);
  EXPECT_EQ(response.unknown_item_ids(0), "no such item");
  EXPECT_EQ(response.unknown_item_count(), 1u);
  EXPECT_EQ(response.unknown_exclude_item_ids(0), "nor this");
}

TEST_F(ServerTest, AHistoryOfUnknownItemsIsAnEmptyOne) {
  v1::RecommendRequest request;
  request.add_history_item_ids("no such item");
  ExpectItems(MustRecommend(request), BruteForce({}, 64, 10, {}));
}

TEST_F(ServerTest, ExcludesTheWholeHistoryAndNotOnlyWhatTheModelReads) {
  std::vector<int32_t> history;
  for (const ScoredItem& item : BruteForce({1}, 64, 30, {})) {
    history.push_back(item.item);  // 30, of which the model reads 10
  }
  const v1::RecommendResponse response = MustRecommend(RequestFor(history));
  ExpectItems(response, BruteForce(history, 64, 10, {history.begin(), history.end()}));
}

TEST_F(ServerTest, IncludeSeenAndExcludeWorkTogether) {
  const std::vector<int32_t> history = {11, 12, 13};
  v1::RecommendRequest request = RequestFor(history);
  request.set_include_seen(true);
  const std::vector<ScoredItem> best = BruteForce(history, 64, 3, {});
  request.add_exclude_item_ids(RandomModelItemId(best[0].item));
  ExpectItems(MustRecommend(request), BruteForce(history, 64, 10, {best[0].item}));
}

TEST_F(ServerTest, ReturnsWhatRemainsWhenLittleDoes) {
  v1::RecommendRequest request;
  for (int item = 1; item <= kItems - 3; ++item) {
    request.add_exclude_item_ids(RandomModelItemId(item));
  }
  request.set_k(1000);
  EXPECT_EQ(MustRecommend(request).items_size(), 3);
  for (int item = kItems - 2; item <= kItems; ++item) {
    request.add_exclude_item_ids(RandomModelItemId(item));
  }
  EXPECT_EQ(MustRecommend(request).items_size(), 0);
}

// Items that the filter below allows: of brands 1 and 3 and a price over 100.
bool OfBrandOneOrThreeAndDear(int32_t item) {
  return (item % 5 == 1 || item % 5 == 3) && item >= 100;
}

TEST_F(ServerTest, FiltersByAttributesAtEveryDim) {
  std::set<int32_t> excluded = {301};
  for (int32_t item = 1; item <= kItems; ++item) {
    if (!OfBrandOneOrThreeAndDear(item)) excluded.insert(item);
  }
  v1::RecommendRequest request;
  request.add_exclude_item_ids(RandomModelItemId(301));
  request.set_k(500);
  v1::ItemFilterList& every = *request.mutable_filter()->mutable_every();
  v1::FieldValues& brands = *every.add_filters()->mutable_any_of();
  brands.set_field("brand");
  brands.add_values()->set_text("Brand 1");
  brands.add_values()->set_text("Brand 3");
  v1::FieldRange& range = *every.add_filters()->mutable_range();
  range.set_field("price");
  range.set_min(100);
  for (const int dim : {8, 24, 64}) {
    request.set_dim(dim);
    ExpectItems(MustRecommend(request), BruteForce({}, dim, 500, excluded));
  }
  request.set_tier("graph");
  EXPECT_EQ(MustRecommend(request).items_size(), static_cast<int>(kItems - excluded.size()));
  request.mutable_filter()->mutable_every()->mutable_filters(1)->mutable_range()->set_min(1e9);
  EXPECT_EQ(MustRecommend(request).items_size(), 0);
}

TEST_F(ServerTest, AllowsOnlyWhatIsListed) {
  v1::RecommendRequest request = RequestFor({4});
  std::set<int32_t> excluded = {4};
  for (int32_t item = 1; item <= kItems; ++item) excluded.insert(item);
  for (const int32_t item : {4, 9, 200}) {
    request.add_only_item_ids(RandomModelItemId(item));
    if (item != 4) excluded.erase(item);
  }
  request.add_only_item_ids("no such item");
  const v1::RecommendResponse response = MustRecommend(request);
  ExpectItems(response, BruteForce({4}, 64, 10, excluded));
  EXPECT_EQ(response.unknown_only_item_count(), 1u);
}

TEST_F(ServerTest, HoldsCapsAndPicksDiverseItems) {
  v1::RecommendRequest request;
  request.set_k(15);
  v1::GroupCap& cap = *request.add_caps();
  cap.set_field("brand");
  cap.set_most(2);
  std::map<int32_t, int> of_brand;
  std::vector<ScoredItem> expected;
  for (const ScoredItem& item : BruteForce({}, 64, kItems, {})) {
    if (++of_brand[item.item % 5] <= 2) expected.push_back(item);
  }
  ASSERT_EQ(expected.size(), 10u);  // two of each of five brands: fewer than k
  ExpectItems(MustRecommend(request), expected);

  request.clear_caps();
  request.mutable_diversity()->set_relevance(1);
  ExpectItems(MustRecommend(request), BruteForce({}, 64, 15, {}));
  request.mutable_diversity()->set_relevance(0);
  const v1::RecommendResponse diverse = MustRecommend(request);
  ASSERT_EQ(diverse.items_size(), 15);
  std::set<std::string> candidates;
  for (const ScoredItem& item : BruteForce({}, 64, 100, {})) {
    candidates.insert(RandomModelItemId(item.item));
  }
  for (const v1::RecommendedItem& item : diverse.items()) {
    EXPECT_EQ(candidates.erase(item.item_id()), 1u) << item.item_id();
  }
}

TEST_F(ServerTest, NamesTheBadPartOfAFilter) {
  v1::RecommendRequest request;
  request.mutable_filter()->mutable_none()->add_filters()->set_exists("colour");
  const auto violations = FieldViolationsOf(client_->Recommend(request).status());
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0].field, "filter.none.filters[0].exists");
  EXPECT_THAT(violations[0].description, HasSubstr("brand, item_id, price, title"));
}

TEST_F(ServerTest, AppliesMinScore) {
  const std::vector<ScoredItem> best = BruteForce({}, 64, 4, {});
  v1::RecommendRequest request;
  request.set_min_score(best.back().score);
  ExpectItems(MustRecommend(request), best);
}

TEST_F(ServerTest, ReturnsTheFieldsAskedFor) {
  v1::RecommendRequest request;
  request.set_k(kItems);
  for (const char* field : {"title", "price", "no such field"}) {
    request.add_fields(field);
  }
  const v1::RecommendResponse response = MustRecommend(request);
  int without_title = 0;
  for (const v1::RecommendedItem& item : response.items()) {
    without_title += item.fields().contains("title") ? 0 : 1;
    EXPECT_FALSE(item.fields().contains("no such field"));
    if (item.item_id() == "item-7") {
      EXPECT_EQ(item.fields().at("title"), "Title 7");
      EXPECT_EQ(item.fields().at("price"), "7.50");
    }
  }
  EXPECT_EQ(without_title, 1);  // item 5 has none
  EXPECT_TRUE(MustRecommend({}).items(0).fields().contains("title"));
}

TEST_F(ServerTest, TiersServeAtTheirDimWithTheirIndex) {
  v1::RecommendRequest request;
  request.set_tier("graph");
  const v1::RecommendResponse response = MustRecommend(request);
  EXPECT_EQ(response.items_size(), 10);
  EXPECT_EQ(response.served().dim(), 24);
  EXPECT_EQ(response.served().tier(), "graph");
  EXPECT_EQ(response.served().why(), v1::WIDTH_REASON_TIER);
  EXPECT_FALSE(response.served().exact());

  const v1::RecommendResponse by_default = MustRecommend({});
  EXPECT_EQ(by_default.served().tier(), "gold");
  EXPECT_EQ(by_default.served().why(), v1::WIDTH_REASON_DEFAULT);
}

TEST_F(ServerTest, ServesByBudgetAndQualityAndSaysWhy) {
  v1::RecommendRequest request = RequestFor({1, 2, 3});
  request.mutable_latency_budget()->set_seconds(3600);
  EXPECT_EQ(MustRecommend(request).served().dim(), 64);
  EXPECT_EQ(MustRecommend(request).served().why(), v1::WIDTH_REASON_DEFAULT);
  request.set_min_quality(0.5);  // gold has one dim, which is enough
  EXPECT_EQ(MustRecommend(request).served().dim(), 64);
  EXPECT_EQ(MustRecommend(request).served().why(), v1::WIDTH_REASON_QUALITY);
}

TEST_F(ServerTest, ReportsStageTimings) {
  const v1::RecommendResponse response = MustRecommend(RequestFor({1, 2, 3}));
  const auto nanos = [](const google::protobuf::Duration& duration) {
    return duration.seconds() * 1'000'000'000 + duration.nanos();
  };
  const v1::StageTimings& timings = response.served().timings();
  EXPECT_GT(nanos(timings.encode()), 0);
  EXPECT_GT(nanos(timings.search()), 0);
  EXPECT_GE(nanos(timings.total()),
            nanos(timings.queue()) + nanos(timings.encode()) + nanos(timings.search()));
}

TEST_F(ServerTest, AnswersDoNotDependOnTheirNeighbours) {
  Start({.threads = 4});
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 8; ++caller) {
    callers.emplace_back([this, caller] {
      for (int round = 0; round < 20; ++round) {
        const int dim = std::vector<int>{8, 24, 64}[static_cast<size_t>(caller + round) % 3];
        const std::vector<int32_t> history = {caller + 1, round + 1, 100 + caller};
        v1::RecommendRequest request = RequestFor(history);
        request.set_dim(dim);
        ExpectItems(MustRecommend(request),
                    BruteForce(history, dim, 10, {history.begin(), history.end()}));
      }
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
}

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
  EXPECT_EQ(info->model_version(), (*snapshot_)->version());
  EXPECT_FALSE(info->program_version().empty());
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
  const auto second = Server::Start({.listen = server_->address()}, *snapshot_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(second.status().message(),
              HasSubstr(absl::StrCat(server_->address(), ": the port is in use")));
}

TEST_F(ServerTest, RefusesBadOptions) {
  EXPECT_EQ(Server::Start({.listen = "nonsense"}, *snapshot_).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Server::Start({.listen = "127.0.0.1:0", .threads = 0}, *snapshot_).status().code(),
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
