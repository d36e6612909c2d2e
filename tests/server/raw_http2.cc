#include "tests/server/raw_http2.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace nestrec {
namespace {

constexpr int kSendTimeoutMs = 5000;

void PutBigEndian(uint32_t value, int bytes, std::string& out) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(value >> shift));
  }
}

// RFC 9113, section 4.1.
std::string Frame(char type, char flags, uint32_t stream, const std::string& payload) {
  std::string frame;
  PutBigEndian(static_cast<uint32_t>(payload.size()), 3, frame);
  frame.push_back(type);
  frame.push_back(flags);
  PutBigEndian(stream, 4, frame);
  return frame + payload;
}

// A literal header field without indexing, its name new (RFC 7541, section 6.2.2).
void PutHeader(const std::string& name, const std::string& value, std::string& out) {
  out.push_back('\0');
  out.push_back(static_cast<char>(name.size()));
  out += name;
  out.push_back(static_cast<char>(value.size()));
  out += value;
}

}  // namespace

RawConnection::RawConnection(int port, int receive_buffer_bytes)
    : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  if (fd_ < 0) return;
  if (receive_buffer_bytes > 0) {
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(receive_buffer_bytes));
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      fcntl(fd_, F_SETFL, O_NONBLOCK) != 0) {
    close(fd_);
    fd_ = -1;
  }
}

RawConnection::~RawConnection() {
  if (fd_ >= 0) close(fd_);
}

RawConnection::RawConnection(RawConnection&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

bool RawConnection::Send(const std::string& bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t count = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count > 0) {
      sent += static_cast<size_t>(count);
      continue;
    }
    if (errno != EAGAIN && errno != EINTR) return false;
    pollfd writable{.fd = fd_, .events = POLLOUT, .revents = 0};
    if (poll(&writable, 1, kSendTimeoutMs) == 0) return false;
  }
  return true;
}

std::string Http2Preface() {
  return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(/*SETTINGS*/ 4, 0, 0, "");
}

std::string Http2Call(uint32_t stream, const std::string& path, const std::string& message) {
  std::string headers;
  PutHeader(":method", "POST", headers);
  PutHeader(":scheme", "http", headers);
  PutHeader(":path", path, headers);
  PutHeader(":authority", "localhost", headers);
  PutHeader("content-type", "application/grpc", headers);
  PutHeader("te", "trailers", headers);
  std::string body(1, '\0');  // not compressed
  PutBigEndian(static_cast<uint32_t>(message.size()), 4, body);
  body += message;
  constexpr char kEndHeaders = 4, kEndStream = 1;
  return Frame(/*HEADERS*/ 1, kEndHeaders, stream, headers) +
         Frame(/*DATA*/ 0, kEndStream, stream, body);
}

}  // namespace nestrec
