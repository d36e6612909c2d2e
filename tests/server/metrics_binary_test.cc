// What the real program shows of itself: the live /metrics against what docs/operations.md says.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/file.h"
#include "base/version.h"
#include "nestrec/v1/admin.grpc.pb.h"
#include "tests/server/serve_program.h"
#include "tests/testing/random_model.h"

namespace nestrec {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

const std::string kBegin = "<!-- metrics: from /metrics, by metrics_binary_test -->\n";
const std::string kEnd = "<!-- end -->\n";

// The documentation's table of what /metrics has.
std::string Table(const std::map<std::string, ServeProgram::MetricFamily>& live) {
  std::string table = "| metric | kind | labels | what it is |\n|---|---|---|---|\n";
  for (const auto& [name, family] : live) {
    absl::StrAppend(&table, "| `", name, "` | ", family.kind, " | ",
                    absl::StrJoin(family.labels, ", "), " | ", absl::StripSuffix(family.help, "."),
                    " |\n");
  }
  return table;
}

// A call of each kind, and some that fail.
void Use(const ServeProgram& program) {
  const RecommendClient client = program.Client();
  v1::RecordEventsRequest events;
  events.set_user_id("a secret user");
  events.add_item_ids(RandomModelItemId(7));
  ASSERT_TRUE(client.RecordEvents(events).ok());
  v1::RecommendRequest request;
  request.set_user_id("a secret user");
  ASSERT_TRUE(client.Recommend(request).ok());
  request.set_dim(16);
  ASSERT_TRUE(client.Recommend(request).ok());
  request.set_dim(17);
  ASSERT_FALSE(client.Recommend(request).ok());
  ASSERT_TRUE(client.GetModelInfo().ok());
}

// The metrics once these have come so far: a call is counted to the end after its answer has left.
std::map<std::string, double> MetricsWith(ServeProgram& program,
                                          const std::map<std::string, double>& least) {
  std::map<std::string, double> values;
  const absl::Time end = absl::Now() + absl::Minutes(1);
  bool reached = false;
  while (!reached && absl::Now() < end) {
    values = program.Metrics();
    reached = std::all_of(least.begin(), least.end(), [&](const auto& each) {
      const auto found = values.find(each.first);
      return found != values.end() && found->second >= each.second;
    });
  }
  return values;
}

std::string Handled(const char* service, const char* method, const char* code) {
  return absl::StrCat("grpc_server_handled_total{grpc_code=\"", code, "\",grpc_method=\"", method,
                      "\",grpc_service=\"nestrec.v1.", service, "\",grpc_type=\"unary\"}");
}

// With NESTREC_WRITE_DOCS in the environment (make reference) it writes the table in place of
// comparing it.
TEST(MetricsBinary, TheDocumentedMetricsAreThoseOfAServer) {
  const TempFolder folder;
  ServeProgram program(
      {.program = NESTREC_PROGRAM,
       .more = {"--request-log", folder.File("requests.jsonl"), "--quality-share", "1"},
       .shadow = true});
  ASSERT_TRUE(program.Start().ok());
  Use(program);
  std::map<std::string, ServeProgram::MetricFamily> live;
  // Comparisons are made off the calls' path.
  for (const absl::Time end = absl::Now() + absl::Minutes(1);
       !(live.contains("nestrec_shadow_ndcg") && live.contains("nestrec_quality_ndcg")) &&
       absl::Now() < end;) {
    live = program.MetricFamilies();
  }
  EXPECT_GT(live.size(), 40u);
  const std::string path = absl::StrCat(NESTREC_SOURCE_DIR, "/docs/operations.md");
  const auto page = ReadFile(path);
  ASSERT_TRUE(page.ok()) << page.status();
  const size_t begin = page->find(kBegin);
  const size_t end = page->find(kEnd, begin);
  ASSERT_NE(end, std::string::npos) << path << " has no place for the table: " << kBegin << kEnd;
  const size_t first = begin + kBegin.size();
  const std::string table = Table(live);
  if (std::getenv("NESTREC_WRITE_DOCS") != nullptr) {
    const absl::Status written =
        WriteFileAtomically(path, absl::StrCat(page->substr(0, first), table, page->substr(end)));
    EXPECT_TRUE(written.ok()) << written;
    return;
  }
  EXPECT_EQ(page->substr(first, end - first), table) << "make reference brings it up to date";
}

TEST(MetricsBinary, CountsCallsAndWhatTheyWereServed) {
  ServeProgram program({.program = NESTREC_PROGRAM});
  ASSERT_TRUE(program.Start().ok());
  Use(program);
  const std::string recommend =
      "{grpc_method=\"Recommend\",grpc_service=\"nestrec.v1.RecommendService\",grpc_type="
      "\"unary\"}";
  const std::map<std::string, double> values =
      MetricsWith(program, {{Handled("RecommendService", "GetModelInfo", "OK"), 1},
                            {Handled("RecommendService", "RecordEvents", "OK"), 1},
                            {"grpc_server_handling_seconds_count" + recommend, 3},
                            {"nestrec_queue_seconds_count{tier=\"gold\"}", 2},
                            {"nestrec_batch_requests_sum", 2},
                            {"nestrec_stage_seconds_count{stage=\"search\"}", 2},
                            {"nestrec_cost_ratio_count", 2}});
  const auto value = [&](const std::string& name) {
    const auto found = values.find(name);
    return found == values.end() ? -1 : found->second;
  };
  const auto handled = [&](const char* method, const char* code) {
    return value(Handled("RecommendService", method, code));
  };
  EXPECT_EQ(handled("Recommend", "OK"), 2);
  EXPECT_EQ(handled("Recommend", "InvalidArgument"), 1);
  EXPECT_EQ(handled("RecordEvents", "OK"), 1);
  EXPECT_EQ(handled("GetModelInfo", "OK"), 1);
  EXPECT_EQ(value("grpc_server_started_total" + recommend), 3);
  EXPECT_EQ(value("grpc_server_handling_seconds_count" + recommend), 3);
  EXPECT_EQ(value("nestrec_served_total{dim=\"64\",tier=\"gold\",why=\"default\"}"), 1);
  EXPECT_EQ(value("nestrec_served_total{dim=\"16\",tier=\"\",why=\"explicit\"}"), 1);
  EXPECT_EQ(value("nestrec_queue_seconds_count{tier=\"gold\"}"), 2);
  EXPECT_EQ(value("nestrec_queued_total{tier=\"gold\"}"), 2);
  EXPECT_EQ(value("nestrec_batch_requests_sum"), 2);
  EXPECT_EQ(value("nestrec_stage_seconds_count{stage=\"search\"}"), 2);
  EXPECT_EQ(value("nestrec_cost_ratio_count"), 2);
  EXPECT_EQ(value("nestrec_sessions"), 1);
  EXPECT_GE(value("nestrec_session_log_operations_total"), 1);
  EXPECT_EQ(value("nestrec_session_log_errors_total"), 0);
  EXPECT_EQ(value("nestrec_session_items_total"), 1);
  EXPECT_EQ(value("nestrec_items"), 200);
  EXPECT_GT(value("nestrec_index_bytes{dim=\"64\"}"), 200 * 64 * 4 - 1);
  EXPECT_GT(value("process_resident_memory_bytes"), 10e6);
  const std::string text = program.Get("/metrics").text;
  EXPECT_THAT(text, ContainsRegex(absl::StrCat("\nnestrec_model_info\\{[^\n]*program_version=\"",
                                               kVersion, "\"")));
  // Nothing in it tells who asked.
  EXPECT_EQ(text.find("secret"), std::string::npos);
}

TEST(MetricsBinary, AVectorIsServedAndNotSearchedFor) {
  ServeProgram program({.program = NESTREC_PROGRAM});
  ASSERT_TRUE(program.Start().ok());
  v1::EncodeRequest request;
  request.set_dim(16);
  ASSERT_TRUE(program.Client().Encode(request).ok());
  const std::string handled = Handled("RecommendService", "Encode", "OK");
  const std::map<std::string, double> values =
      MetricsWith(program, {{handled, 1},
                            {"nestrec_queue_seconds_count{tier=\"gold\"}", 1},
                            {"nestrec_stage_seconds_count{stage=\"encode\"}", 1},
                            {"nestrec_batch_requests_sum", 1}});
  const auto value = [&](const std::string& name) {
    const auto found = values.find(name);
    return found == values.end() ? -1 : found->second;
  };
  EXPECT_EQ(value(handled), 1);
  EXPECT_EQ(value("nestrec_served_total{dim=\"16\",tier=\"\",why=\"explicit\"}"), 1);
  EXPECT_EQ(value("nestrec_queue_seconds_count{tier=\"gold\"}"), 1);
  EXPECT_EQ(value("nestrec_stage_seconds_count{stage=\"encode\"}"), 1);
  EXPECT_EQ(value("nestrec_stage_seconds_count{stage=\"search\"}"), 0);
  EXPECT_EQ(value("nestrec_batch_requests_sum"), 1);
}

TEST(MetricsBinary, CountsOperatorsCalls) {
  ServeProgram program({.program = NESTREC_PROGRAM, .more = {"--admin-listen", "127.0.0.1:0"}});
  ASSERT_TRUE(program.Start().ok());
  const std::string output = program.child().output();
  const std::string key = "admin_address=";
  const size_t at = output.find(key);
  ASSERT_NE(at, std::string::npos) << output;
  const size_t begin = at + key.size();
  const std::string address = output.substr(begin, output.find(' ', begin) - begin);
  const auto stub =
      v1::AdminService::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext asks, sets;
  v1::GetStatusResponse status;
  EXPECT_TRUE(stub->GetStatus(&asks, {}, &status).ok());
  v1::SetLabelsRequest labels;
  labels.mutable_labels()->set_stable("no such version");
  v1::SetLabelsResponse refused;
  EXPECT_FALSE(stub->SetLabels(&sets, labels, &refused).ok());
  const std::map<std::string, double> values =
      MetricsWith(program, {{Handled("AdminService", "GetStatus", "OK"), 1},
                            {Handled("AdminService", "SetLabels", "InvalidArgument"), 1}});
  const auto handled = [&](const char* method, const char* code) {
    const auto found = values.find(Handled("AdminService", method, code));
    return found == values.end() ? -1 : found->second;
  };
  EXPECT_EQ(handled("GetStatus", "OK"), 1);
  EXPECT_EQ(handled("SetLabels", "InvalidArgument"), 1);
}

TEST(MetricsBinary, ReadinessFollowsTheServersLife) {
  // A request that waits for others for a second keeps the drain from ending at once.
  ServeProgram program({.program = NESTREC_PROGRAM, .more = {"--batch-delay", "1s"}});
  ASSERT_TRUE(program.Start().ok());
  EXPECT_EQ(program.Get("/healthz").code, 200);
  EXPECT_EQ(program.Get("/readyz").code, 200);
  std::thread waiting([&] {
    const auto answer = program.Client().Recommend({});
    EXPECT_TRUE(answer.ok()) << answer.status();
  });
  const std::string queued = "nestrec_queued_total{tier=\"gold\"}";
  while (program.Metrics()[queued] < 1) std::this_thread::yield();
  program.child().Signal(SIGTERM);
  ServeProgram::Page page;
  do {
    page = program.Get("/readyz");
  } while (page.code == 200);
  EXPECT_EQ(page.code, 503);
  EXPECT_EQ(page.text, "not ready: the server is draining\n");
  EXPECT_EQ(program.Get("/healthz").code, 200);
  waiting.join();
  const auto code = program.child().WaitForExit();
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_EQ(*code, 0);
}

TEST(MetricsBinary, TheListenerIsThereBeforeTheModel) {
  const TempFolder folder;
  const std::string port_file = folder.File("port");
  auto child = ChildProcess::Start({NESTREC_PROGRAM, "serve", "--model", folder.File("none"),
                                    "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0",
                                    "--http-port-file", port_file});
  ASSERT_TRUE(child.ok()) << child.status();
  const auto code = (*child)->WaitForExit();
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_EQ(*code, 1);
  EXPECT_TRUE(FileExists(port_file));
  EXPECT_THAT((*child)->output(), HasSubstr("info http address=127.0.0.1:"));
}

TEST(MetricsBinary, RefusesBadFlags) {
  const auto run = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {NESTREC_PROGRAM, "serve", "--model", "none"});
    auto child = ChildProcess::Start(arguments);
    EXPECT_TRUE(child.ok()) << child.status();
    const auto code = (*child)->WaitForExit();
    return absl::StrCat(code.value_or(-1), " ", (*child)->output());
  };
  EXPECT_THAT(run({"--http-listen", "nowhere"}),
              HasSubstr("--http-listen: \"nowhere\" is not an address"));
  EXPECT_THAT(run({"--quality-share", "0.5"}), HasSubstr("without --http-listen"));
  EXPECT_THAT(run({"--slow-request", "soon"}),
              HasSubstr("--slow-request: 'soon' is not a duration from 0s (none) to 1h"));
  EXPECT_THAT(run({"--http-port-file", "x"}),
              HasSubstr("--http-port-file: there is no port without --http-listen"));
}

}  // namespace
}  // namespace nestrec
