#include "server/acceptor.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

constexpr int kBacklog = 1024;  // connections that wait in the system
constexpr int kRetryMs = 100;

bool IsWildcard(const ListenAddress& address) {
  return address.host == "0.0.0.0" || address.host == "::";
}

int BoundPort(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return 0;
  return ntohs(address.ss_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port
                   : reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
}

// -1 where it cannot. A socket of IPv6 takes IPv4 too where `both`.
int ListenOn(int family, const sockaddr* address, socklen_t length, bool both) {
  const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  const int on = 1;
  const int only_ipv6 = both ? 0 : 1;
  // So that connections of an earlier server that still linger do not count.
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));  // connections inherit it
  if (family == AF_INET6) {
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_ipv6, sizeof(only_ipv6));
  }
  if (bind(fd, address, length) == 0 && listen(fd, kBacklog) == 0) return fd;
  close(fd);
  return -1;
}

void SetPort(sockaddr* address, int port) {
  if (address->sa_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(address)->sin6_port = htons(static_cast<uint16_t>(port));
  } else {
    reinterpret_cast<sockaddr_in*>(address)->sin_port = htons(static_cast<uint16_t>(port));
  }
}

// All that can be bound, on one port.
std::vector<int> ListenOnAll(const ListenAddress& address) {
  std::vector<int> sockets;
  if (IsWildcard(address)) {
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    any.sin6_port = htons(static_cast<uint16_t>(address.port));
    const int fd = ListenOn(AF_INET6, reinterpret_cast<const sockaddr*>(&any), sizeof(any), true);
    if (fd >= 0) return {fd};
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(address.host.c_str(), absl::StrCat(address.port).c_str(), &hints, &found) != 0) {
    return {};
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  for (const addrinfo* candidate = found; candidate != nullptr; candidate = candidate->ai_next) {
    // A free port was chosen with the first.
    if (!sockets.empty()) SetPort(candidate->ai_addr, BoundPort(sockets.front()));
    const int fd = ListenOn(candidate->ai_family, candidate->ai_addr, candidate->ai_addrlen, false);
    if (fd >= 0) sockets.push_back(fd);
  }
  return sockets;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Acceptor>> Acceptor::Listen(const ListenAddress& address, Log log) {
  NESTREC_RETURN_IF_ERROR(CheckCanListen(address));
  std::vector<int> sockets = ListenOnAll(address);
  if (sockets.empty()) {
    // Somebody was faster than we between the check and here.
    return absl::UnavailableError(absl::StrCat("cannot listen on ", address.ToString()));
  }
  const int stop_fd = eventfd(0, EFD_CLOEXEC);
  if (stop_fd < 0) {
    const int error = errno;
    for (const int fd : sockets) close(fd);
    return ErrnoStatus(error, "cannot listen on", address.ToString());
  }
  const int port = BoundPort(sockets.front());
  return std::unique_ptr<Acceptor>(new Acceptor(std::move(sockets), port, stop_fd, std::move(log)));
}

Acceptor::Acceptor(std::vector<int> sockets, int port, int stop_fd, Log log)
    : sockets_(std::move(sockets)), port_(port), stop_fd_(stop_fd), log_(std::move(log)) {}

Acceptor::~Acceptor() {
  Stop();
  for (const int fd : sockets_) close(fd);
  close(stop_fd_);
}

void Acceptor::AddTo(grpc::ServerBuilder& builder,
                     const std::shared_ptr<grpc::ServerCredentials>& credentials) {
  into_ = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, credentials);
}

void Acceptor::Start() {
  thread_ = std::thread([this] { Run(); });
}

void Acceptor::Stop() {
  if (!thread_.joinable()) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(stop_fd_, &one, sizeof(one));
  thread_.join();
  // Who still waits is told at once that nobody is here.
  for (const int fd : sockets_) shutdown(fd, SHUT_RDWR);
}

void Acceptor::Run() {
  std::vector<pollfd> waiting = {{.fd = stop_fd_, .events = POLLIN, .revents = 0}};
  for (const int fd : sockets_) waiting.push_back({.fd = fd, .events = POLLIN, .revents = 0});
  bool refused = false;
  while (true) {
    // Without a descriptor the sockets stay readable: waiting for them would not wait.
    if (poll(waiting.data(), refused ? 1 : waiting.size(), refused ? kRetryMs : -1) < 0 &&
        errno != EINTR) {
      log_.Warning("accept_failed", {{"why", std::strerror(errno)}});
      return;
    }
    if (waiting[0].revents != 0) return;
    const bool was_refused = std::exchange(refused, false);
    for (const int fd : sockets_) refused |= !AcceptAll(fd);
    if (refused && !was_refused) {
      log_.Warning("accept_failed",
                   {{"why", std::strerror(EMFILE)},
                    {"cure", "raise the limit of open files (ulimit -n); callers wait"}});
    }
    if (was_refused && !refused) log_.Info("accepting_again");
  }
}

bool Acceptor::AcceptAll(int socket) {
  while (true) {
    const int fd = accept4(socket, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
      connection.listener_fd = socket;
      connection.fd = fd;
      into_->HandleNewConnection(&connection);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      return false;
    } else if (errno == EAGAIN || errno == EINVAL || errno == EBADF) {
      return true;  // none waits
    }
    // Else it was an error of that connection, which has gone.
  }
}

}  // namespace nestrec
