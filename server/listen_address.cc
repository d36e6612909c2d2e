#include "server/listen_address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"

namespace nestrec {
namespace {

absl::Status BindError(const ListenAddress& address, int error) {
  const std::string what = absl::StrCat("cannot listen on ", address.ToString(), ": ");
  switch (error) {
    case EADDRINUSE:
      return absl::UnavailableError(
          absl::StrCat(what, "the port is in use; choose another one, or 0 for a free one"));
    case EADDRNOTAVAIL:
      return absl::UnavailableError(absl::StrCat(what, "this machine has no such address"));
    case EACCES:
      return absl::PermissionDeniedError(
          absl::StrCat(what, "permission denied; ports below 1024 need a privilege"));
    default:
      return absl::UnavailableError(absl::StrCat(what, std::strerror(error)));
  }
}

// 0 or errno.
int TryBind(const addrinfo& candidate) {
  const int fd =
      socket(candidate.ai_family, candidate.ai_socktype | SOCK_CLOEXEC, candidate.ai_protocol);
  if (fd < 0) {
    return errno;
  }
  const absl::Cleanup close_fd = [fd] { close(fd); };
  // As gRPC does, so that connections of an earlier server that still linger do not count.
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (candidate.ai_family == AF_INET6) {
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  }
  // With SO_REUSEADDR two sockets may bind; only one may listen.
  if (bind(fd, candidate.ai_addr, candidate.ai_addrlen) != 0 || listen(fd, 1) != 0) {
    return errno;
  }
  return 0;
}

}  // namespace

absl::StatusOr<ListenAddress> ListenAddress::Parse(const std::string& text) {
  const size_t colon = text.rfind(':');
  absl::string_view host =
      absl::string_view(text).substr(0, colon == std::string::npos ? 0 : colon);
  const bool bracketed = absl::StartsWith(host, "[") && absl::EndsWith(host, "]");
  int port = -1;
  const bool numeric = colon != std::string::npos &&
                       absl::SimpleAtoi(absl::string_view(text).substr(colon + 1), &port);
  if (!numeric || port < 0 || port > 65535 ||
      (!bracketed && host.find(':') != absl::string_view::npos)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text,
                     "\" is not an address to listen on; give host:port, "
                     "for example 127.0.0.1:50051 or [::1]:0"));
  }
  if (bracketed) {
    host = host.substr(1, host.size() - 2);
  }
  return ListenAddress{.host = host.empty() ? "0.0.0.0" : std::string(host), .port = port};
}

std::string ListenAddress::ToString() const {
  const bool ipv6 = absl::StrContains(host, ':');
  return absl::StrCat(ipv6 ? "[" : "", host, ipv6 ? "]" : "", ":", port);
}

absl::Status CheckCanListen(const ListenAddress& address) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(address.host.c_str(), absl::StrCat(address.port).c_str(), &hints, &found);
  if (error != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot listen on ", address.ToString(), ": ", gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  absl::Status first_error = absl::OkStatus();
  bool can_listen = false;
  for (const addrinfo* candidate = found; candidate != nullptr; candidate = candidate->ai_next) {
    const int bind_error = TryBind(*candidate);
    if (bind_error == EADDRINUSE) {
      return BindError(address, bind_error);
    }
    can_listen |= bind_error == 0;
    if (bind_error != 0 && first_error.ok()) {
      first_error = BindError(address, bind_error);
    }
  }
  // A name may stand for an address family that this machine has not; one that works is enough.
  return can_listen ? absl::OkStatus() : first_error;
}

}  // namespace nestrec
