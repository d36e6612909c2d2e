#include "server/http_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/http_request.h"
#include "server/metrics.h"
#include "server/operator_pages.h"
#include "server/readiness.h"

namespace nestrec {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

// A client's socket, without the manners of a library.
class RawClient {
 public:
  explicit RawClient(int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~RawClient() { close(fd_); }
  bool connected() const { return connected_; }
  void Send(const std::string& bytes) const {
    [[maybe_unused]] const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  // All until the server closes.
  std::string ReadAll() const {
    std::string all;
    char bytes[4096];
    for (;;) {
      pollfd wait{.fd = fd_, .events = POLLIN, .revents = 0};
      if (poll(&wait, 1, 60'000) <= 0) return "the server never closed";
      const ssize_t count = recv(fd_, bytes, sizeof(bytes), 0);
      if (count <= 0) return all;
      all.append(bytes, static_cast<size_t>(count));
    }
  }

 private:
  const int fd_;
  bool connected_ = false;
};

std::unique_ptr<HttpServer> StartServer(HttpServer::Pages pages,
                                        absl::Duration timeout = HttpServer::kTimeout) {
  auto server = HttpServer::Start({.listen = "127.0.0.1:0", .timeout = timeout}, std::move(pages));
  EXPECT_TRUE(server.ok()) << server.status();
  return server.ok() ? *std::move(server) : nullptr;
}

HttpServer::Pages OnePage() {
  return {{"/page", [] { return HttpPage{.text = "what it says\n"}; }}};
}

TEST(HttpRequest, ReadsWhatClientsSend) {
  const auto parsed = [](absl::string_view text) { return ParseHttpHead(text); };
  EXPECT_EQ(parsed("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")->path, "/metrics");
  EXPECT_EQ(parsed("GET /a?b=/c HTTP/1.0\n\n")->path, "/a");
  EXPECT_EQ(parsed("HEAD / HTTP/1.1\r\n\r\n")->kind, HttpRequest::Kind::kHead);
  EXPECT_EQ(parsed("DELETE / HTTP/1.1\r\n\r\n")->kind, HttpRequest::Kind::kOther);
  for (const char* bad : {"", "\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/2\r\n\r\n",
                          "GET /a b HTTP/1.1\r\n\r\n", "GET http://x/ HTTP/1.1\r\n\r\n",
                          "\x16\x03\x01 / HTTP/1.1x\r\n\r\n", " / HTTP/1.1\r\n\r\n"}) {
    EXPECT_FALSE(parsed(bad).has_value()) << bad;
  }
  EXPECT_EQ(HttpHeadSize("GET / HTTP/1.1\r\n"), 0u);
  EXPECT_EQ(HttpHeadSize("a\r\n\r\nbody"), 5u);
  EXPECT_EQ(HttpHeadSize("a\n\nbody"), 3u);
}

TEST(HttpServer, AnswersAClientOfAnotherMake) {
  const auto server = StartServer(OnePage());
  httplib::Client client("127.0.0.1", server->port());
  for (int i = 0; i < 3; ++i) {
    const auto got = client.Get("/page");
    ASSERT_TRUE(got);
    EXPECT_EQ(got->status, 200);
    EXPECT_EQ(got->body, "what it says\n");
    EXPECT_EQ(got->get_header_value("Content-Type"), "text/plain; charset=utf-8");
  }
  const auto head = client.Head("/page");
  ASSERT_TRUE(head);
  EXPECT_EQ(head->get_header_value("Content-Length"), "13");
  EXPECT_THAT(head->body, IsEmpty());
  EXPECT_EQ(client.Get("/page?what=ever")->status, 200);
  const auto missing = client.Get("/other");
  ASSERT_TRUE(missing);
  EXPECT_EQ(missing->status, 404);
  EXPECT_THAT(missing->body, HasSubstr("/page\n"));
}

TEST(HttpServer, RefusesOtherMethodsAndWhatIsNoRequest) {
  const auto server = StartServer(OnePage());
  httplib::Client client("127.0.0.1", server->port());
  const auto posted = client.Post("/page", "x=1", "text/plain");
  ASSERT_TRUE(posted);
  EXPECT_EQ(posted->status, 405);
  EXPECT_EQ(posted->get_header_value("Allow"), "GET, HEAD");
  const RawClient tls(server->port());
  tls.Send(std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n", 13));
  EXPECT_THAT(tls.ReadAll(), StartsWith("HTTP/1.1 400 "));
}

TEST(HttpServer, RefusesARequestBeyondItsLimit) {
  const auto server = StartServer(OnePage());
  const RawClient client(server->port());
  client.Send(
      absl::StrCat("GET /page HTTP/1.1\r\nx: ", std::string(HttpServer::kMaxRequestBytes, 'x')));
  EXPECT_THAT(client.ReadAll(), StartsWith("HTTP/1.1 431 "));
}

TEST(HttpServer, APageThatThrowsIsAnErrorOfThatPage) {
  HttpServer::Pages pages = OnePage();
  pages["/bad"] = []() -> HttpPage { throw std::runtime_error("no luck"); };
  const auto server = StartServer(std::move(pages));
  httplib::Client client("127.0.0.1", server->port());
  EXPECT_EQ(client.Get("/bad")->status, 500);
  EXPECT_EQ(client.Get("/page")->status, 200);
}

TEST(HttpServer, SendsAPageLargerThanTheSystemsBuffersToASlowReader) {
  const std::string large(16 << 20, 'y');
  const auto server =
      StartServer({{"/large", [&] { return HttpPage{.text = large}; }}}, absl::Seconds(60));
  const RawClient slow(server->port());
  slow.Send("GET /large HTTP/1.1\r\n\r\n");
  // The server is not busy with it meanwhile.
  httplib::Client client("127.0.0.1", server->port());
  EXPECT_EQ(client.Get("/none")->status, 404);
  const std::string all = slow.ReadAll();
  EXPECT_EQ(all.size() - all.find("\r\n\r\n") - 4, large.size());
}

TEST(HttpServer, ClosesWhatTakesTooLong) {
  const auto server = StartServer(OnePage(), absl::Milliseconds(200));
  const RawClient silent(server->port());
  const RawClient slow(server->port());
  slow.Send("GET /pa");
  EXPECT_THAT(silent.ReadAll(), IsEmpty());
  EXPECT_THAT(slow.ReadAll(), IsEmpty());
}

TEST(HttpServer, ManySlowClientsDoNotKeepAFastOneOut) {
  const auto server = StartServer(OnePage(), absl::Hours(1));
  std::vector<std::unique_ptr<RawClient>> slow;
  for (size_t i = 0; i < 3 * HttpServer::kMaxConnections; ++i) {
    slow.push_back(std::make_unique<RawClient>(server->port()));
    ASSERT_TRUE(slow.back()->connected());
    slow.back()->Send("GET /page HTTP/1.1\r\n");
  }
  httplib::Client client("127.0.0.1", server->port());
  const auto got = client.Get("/page");
  ASSERT_TRUE(got);
  EXPECT_EQ(got->status, 200);
  // The oldest made room.
  EXPECT_THAT(slow.front()->ReadAll(), IsEmpty());
}

TEST(HttpServer, GoesOnWhenFileDescriptorsRanOut) {
  const auto server = StartServer(OnePage());
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const int lowest_free = dup(0);
  close(lowest_free);
  // Room for two more, which the clients take: none is left for the server's end of the second.
  const auto limit = static_cast<rlim_t>(lowest_free + 3);
  const rlimit few{.rlim_cur = limit, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  {
    const RawClient first(server->port());
    const RawClient second(server->port());
    EXPECT_TRUE(first.connected());
    second.Send("GET /page HTTP/1.1\r\n\r\n");
    EXPECT_THAT(second.ReadAll(), HasSubstr("what it says"));
  }
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  httplib::Client client("127.0.0.1", server->port());
  EXPECT_EQ(client.Get("/page")->status, 200);
}

TEST(HttpServer, NamesAnAddressThatIsTaken) {
  const auto first = StartServer(OnePage());
  const auto second = HttpServer::Start({.listen = first->address()}, OnePage());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(second.status().message(), HasSubstr(first->address()));
  EXPECT_EQ(HttpServer::Start({.listen = "nowhere"}, OnePage()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(OperatorPages, TellMetricsLifeAndReadiness) {
  Metrics metrics;
  Readiness readiness("the model is being loaded");
  metrics.Counter("calls_total", "Calls.").Add(3);
  const auto server = StartServer(OperatorPages(metrics, readiness));
  httplib::Client client("127.0.0.1", server->port());
  EXPECT_EQ(client.Get("/healthz")->status, 200);
  EXPECT_EQ(client.Get("/readyz")->status, 503);
  EXPECT_EQ(client.Get("/readyz")->body, "not ready: the model is being loaded\n");
  readiness.SetReady();
  EXPECT_EQ(client.Get("/readyz")->status, 200);
  readiness.SetNotReady("the server is draining");
  EXPECT_THAT(client.Get("/readyz")->body, HasSubstr("draining"));
  const auto text = client.Get("/metrics");
  EXPECT_THAT(text->body, HasSubstr("\ncalls_total 3\n"));
  EXPECT_EQ(text->get_header_value("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
}

TEST(Readiness, TellsListenersAtOnceAndOnEachChange) {
  Readiness readiness("loading");
  std::vector<bool> heard;
  readiness.Listen([&](bool ready) { heard.push_back(ready); });
  readiness.SetReady();
  readiness.SetNotReady("draining");
  EXPECT_THAT(heard, ::testing::ElementsAre(false, true, false));
  EXPECT_EQ(readiness.why_not(), "draining");
}

}  // namespace
}  // namespace nestrec
