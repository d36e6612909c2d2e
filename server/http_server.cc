#include "server/http_server.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <list>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/guard.h"
#include "base/status_macros.h"
#include "server/clock.h"
#include "server/http_request.h"
#include "server/listen_address.h"

namespace nestrec {
namespace {

constexpr int kBacklog = 64;
constexpr absl::Duration kPauseWithoutFiles = absl::Milliseconds(100);

// A file descriptor that is closed at the end.
class OwnedFd {
 public:
  explicit OwnedFd(int fd = -1) : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~OwnedFd() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

int PortOf(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  char port[NI_MAXSERV] = "0";
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      getnameinfo(reinterpret_cast<sockaddr*>(&address), size, nullptr, 0, port, sizeof(port),
                  NI_NUMERICSERV) != 0) {
    return 0;
  }
  return std::atoi(port);
}

absl::StatusOr<OwnedFd> ListenOn(const addrinfo& candidate, const std::string& name) {
  OwnedFd fd(socket(candidate.ai_family, candidate.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    candidate.ai_protocol));
  if (fd.get() < 0) return ErrnoStatus(errno, "open a socket for", name);
  const int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (candidate.ai_family == AF_INET6) {
    setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  }
  if (bind(fd.get(), candidate.ai_addr, candidate.ai_addrlen) != 0 ||
      listen(fd.get(), kBacklog) != 0) {
    return ErrnoStatus(errno, "listen on", name);
  }
  return fd;
}

// Sockets for every address that the host stands for, on one port, which port 0 lets the first of
// them choose.
absl::StatusOr<std::vector<OwnedFd>> Listen(ListenAddress& address) {
  NESTREC_RETURN_IF_ERROR(CheckCanListen(address));
  std::vector<OwnedFd> listeners;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  absl::Status error = absl::OkStatus();
  for (const int family : {AF_INET, AF_INET6}) {
    hints.ai_family = family;
    addrinfo* found = nullptr;
    if (getaddrinfo(address.host.c_str(), absl::StrCat(address.port).c_str(), &hints, &found) != 0)
      continue;
    const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
    absl::StatusOr<OwnedFd> fd = ListenOn(*found, address.ToString());
    if (!fd.ok()) {
      error.Update(fd.status());
      continue;
    }
    if (address.port == 0) address.port = PortOf(fd->get());
    listeners.push_back(*std::move(fd));
  }
  if (listeners.empty()) {
    error.Update(absl::UnavailableError(absl::StrCat("cannot listen on ", address.ToString())));
    return error;
  }
  return listeners;
}

absl::string_view Phrase(int code) {
  switch (code) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    default:
      return "Internal Server Error";
  }
}

std::string AnswerOf(const HttpPage& page, bool with_text) {
  return absl::StrCat("HTTP/1.1 ", page.code, " ", Phrase(page.code),
                      "\r\nContent-Type: ", page.type, "\r\nContent-Length: ", page.text.size(),
                      "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
                      page.code == 405 ? "Allow: GET, HEAD\r\n" : "", "Connection: close\r\n\r\n",
                      with_text ? page.text : "");
}

}  // namespace

class HttpServer::Loop {
 public:
  Loop(Options options, Pages pages, std::vector<OwnedFd> listeners, OwnedFd wake, OwnedFd woken)
      : options_(std::move(options)),
        pages_(std::move(pages)),
        listeners_(std::move(listeners)),
        wake_(std::move(wake)),
        woken_(std::move(woken)) {}

  void Run();
  // Ends Run.
  void Stop() {
    const char byte = 0;
    [[maybe_unused]] const ssize_t written = write(wake_.get(), &byte, 1);
  }

 private:
  struct Connection {
    OwnedFd fd;
    Instant ends;
    std::string head;    // what came
    std::string answer;  // empty: none yet
    size_t sent = 0;

    bool answered() const { return !answer.empty() && sent == answer.size(); }
  };

  void Accept(int listener, Instant now);
  // False when the connection is over.
  bool Read(Connection& connection);
  static bool Write(Connection& connection);
  std::string Answer(absl::string_view head) const;

  const Options options_;
  const Pages pages_;
  const std::vector<OwnedFd> listeners_;
  const OwnedFd wake_, woken_;
  std::list<Connection> connections_;  // oldest first
  Instant accept_again_ = Instant::min();
};

void HttpServer::Loop::Run() {
  for (;;) {
    Instant now = std::chrono::steady_clock::now();
    connections_.remove_if([&](const Connection& connection) { return now >= connection.ends; });
    std::vector<pollfd> waits = {{.fd = woken_.get(), .events = POLLIN, .revents = 0}};
    Instant until = connections_.empty() ? Instant::max() : connections_.front().ends;
    const bool accepting = now >= accept_again_;
    if (!accepting) until = std::min(until, accept_again_);
    for (const OwnedFd& listener : listeners_) {
      waits.push_back({.fd = accepting ? listener.get() : -1, .events = POLLIN, .revents = 0});
    }
    for (const Connection& connection : connections_) {
      const bool writes = !connection.answer.empty() && !connection.answered();
      waits.push_back({.fd = connection.fd.get(),
                       .events = static_cast<short>(writes ? POLLOUT : POLLIN),
                       .revents = 0});
    }
    const int64_t wait_ms =
        until == Instant::max()
            ? -1
            : absl::ToInt64Milliseconds(absl::Ceil(Between(now, until), absl::Milliseconds(1)));
    if (poll(waits.data(), waits.size(), static_cast<int>(wait_ms)) < 0) continue;  // EINTR
    if (waits[0].revents != 0) return;
    size_t wait = 1 + listeners_.size();
    for (auto connection = connections_.begin(); connection != connections_.end(); ++wait) {
      const bool ready = waits[wait].revents != 0;
      const bool lives =
          !ready || (waits[wait].events == POLLOUT ? Write(*connection) : Read(*connection));
      connection = lives ? std::next(connection) : connections_.erase(connection);
    }
    now = std::chrono::steady_clock::now();
    for (size_t i = 0; i < listeners_.size(); ++i) {
      if (waits[1 + i].revents != 0) Accept(listeners_[i].get(), now);
    }
  }
}

void HttpServer::Loop::Accept(int listener, Instant now) {
  OwnedFd fd(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd.get() < 0) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      // The listener stays readable: without a pause this thread would spin.
      if (!connections_.empty()) connections_.pop_front();
      accept_again_ = now + absl::ToChronoNanoseconds(kPauseWithoutFiles);
    }
    return;
  }
  if (connections_.size() >= kMaxConnections) connections_.pop_front();
  connections_.push_back({.fd = std::move(fd),
                          .ends = now + absl::ToChronoNanoseconds(options_.timeout),
                          .head = {},
                          .answer = {}});
}

bool HttpServer::Loop::Read(Connection& connection) {
  char bytes[kMaxRequestBytes];
  const ssize_t count = recv(connection.fd.get(), bytes, sizeof(bytes), 0);
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  if (count == 0) return false;
  // After its answer: read until the other side closes, since closing first would make the system
  // take back what it has not delivered.
  if (connection.answered()) return true;
  connection.head.append(bytes, static_cast<size_t>(count));
  const size_t head = HttpHeadSize(connection.head);
  if (head == 0 && connection.head.size() < kMaxRequestBytes) return true;
  connection.answer =
      head == 0 || head > kMaxRequestBytes
          ? AnswerOf({.code = 431,
                      .text = absl::StrCat("a request may have ", kMaxRequestBytes, " bytes\n")},
                     true)
          : Answer(absl::string_view(connection.head).substr(0, head));
  connection.head = {};
  return Write(connection);
}

bool HttpServer::Loop::Write(Connection& connection) {
  while (!connection.answered()) {
    const ssize_t count = send(connection.fd.get(), connection.answer.data() + connection.sent,
                               connection.answer.size() - connection.sent, MSG_NOSIGNAL);
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    connection.sent += static_cast<size_t>(count);
  }
  shutdown(connection.fd.get(), SHUT_WR);
  return true;
}

std::string HttpServer::Loop::Answer(absl::string_view head) const {
  const std::optional<HttpRequest> request = ParseHttpHead(head);
  if (!request.has_value()) {
    return AnswerOf({.code = 400, .text = "not an HTTP/1.1 request\n"}, true);
  }
  const bool with_text = request->kind != HttpRequest::Kind::kHead;
  if (request->kind == HttpRequest::Kind::kOther) {
    return AnswerOf({.code = 405, .text = "only GET and HEAD\n"}, true);
  }
  const auto found = pages_.find(request->path);
  if (found == pages_.end()) {
    std::string text = "there is only:\n";
    for (const auto& [path, page] : pages_) absl::StrAppend(&text, path, "\n");
    return AnswerOf({.code = 404, .text = std::move(text)}, with_text);
  }
  const absl::StatusOr<HttpPage> page =
      Guard("making a page", [&]() -> absl::StatusOr<HttpPage> { return found->second(); });
  if (!page.ok()) {
    return AnswerOf({.code = 500, .text = absl::StrCat(page.status().message(), "\n")}, with_text);
  }
  return AnswerOf(*page, with_text);
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(Options options, Pages pages) {
  NESTREC_ASSIGN_OR_RETURN(ListenAddress address, ListenAddress::Parse(options.listen));
  NESTREC_ASSIGN_OR_RETURN(std::vector<OwnedFd> listeners, Listen(address));
  int fds[2];
  if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) {
    return ErrnoStatus(errno, "open a pipe for", address.ToString());
  }
  auto loop = std::make_unique<Loop>(std::move(options), std::move(pages), std::move(listeners),
                                     OwnedFd(fds[1]), OwnedFd(fds[0]));
  return Guard("starting a thread", [&]() -> absl::StatusOr<std::unique_ptr<HttpServer>> {
    return std::unique_ptr<HttpServer>(
        new HttpServer(std::move(loop), address.ToString(), address.port));
  });
}

HttpServer::HttpServer(std::unique_ptr<Loop> loop, std::string address, int port)
    : loop_(std::move(loop)),
      address_(std::move(address)),
      port_(port),
      thread_([this] { loop_->Run(); }) {}

HttpServer::~HttpServer() {
  loop_->Stop();
  thread_.join();
}

}  // namespace nestrec
