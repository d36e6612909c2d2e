#include "tests/server/raw_http2.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
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

std::string RawConnection::Receive(int wait_ms) {
  pollfd readable{.fd = fd_, .events = POLLIN, .revents = 0};
  if (fd_ < 0 || poll(&readable, 1, wait_ms) <= 0) return "";
  std::string bytes(1 << 16, '\0');
  const ssize_t count = recv(fd_, bytes.data(), bytes.size(), 0);
  if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) {
    close(fd_);
    fd_ = -1;
  }
  bytes.resize(count > 0 ? static_cast<size_t>(count) : 0);
  return bytes;
}

std::string Http2Preface() {
  return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(/*SETTINGS*/ 4, 0, 0, "");
}

namespace {

constexpr char kEndHeaders = 4, kEndStream = 1, kAck = 1;

std::string CallHeaders(uint32_t stream, const std::string& path) {
  std::string headers;
  PutHeader(":method", "POST", headers);
  PutHeader(":scheme", "http", headers);
  PutHeader(":path", path, headers);
  PutHeader(":authority", "localhost", headers);
  PutHeader("content-type", "application/grpc", headers);
  PutHeader("te", "trailers", headers);
  return Frame(/*HEADERS*/ 1, kEndHeaders, stream, headers);
}

uint32_t BigEndian(const std::string& bytes, size_t at, size_t count) {
  uint32_t value = 0;
  for (size_t i = at; i < at + count; ++i) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

}  // namespace

std::string Http2Call(uint32_t stream, const std::string& path, const std::string& message) {
  std::string body(1, '\0');  // not compressed
  PutBigEndian(static_cast<uint32_t>(message.size()), 4, body);
  body += message;
  return CallHeaders(stream, path) + Frame(/*DATA*/ 0, kEndStream, stream, body);
}

UnfinishedCalls::UnfinishedCalls(int port, const std::string& path, int calls,
                                 int64_t message_bytes)
    : connection_(port),
      path_(path),
      calls_(static_cast<size_t>(calls)),
      message_bytes_(message_bytes) {
  connection_.Send(Http2Preface());
}

void UnfinishedCalls::Begin() {
  connection_.Send(CallHeaders(next_stream_, path_));
  streams_[next_stream_] = {};
  next_stream_ += 2;
}

void UnfinishedCalls::Step() {
  constexpr int64_t kFrameBytes = 16'000;
  while (streams_.size() < calls_) Begin();
  bool sent = false;
  for (auto& [number, stream] : streams_) {
    const int64_t bytes =
        std::min({window_, initial_window_ + stream.granted_bytes - stream.sent_bytes,
                  message_bytes_ - 1 - stream.sent_bytes, kFrameBytes});
    if (bytes < 100) continue;
    std::string data;
    if (stream.sent_bytes == 0) {
      data.push_back('\0');  // not compressed
      PutBigEndian(static_cast<uint32_t>(message_bytes_), 4, data);
    }
    data.resize(static_cast<size_t>(bytes), 'a');
    connection_.Send(Frame(/*DATA*/ 0, 0, number, data));
    window_ -= bytes;
    stream.sent_bytes += bytes;
    sent_bytes_ += bytes;
    sent = true;
  }
  received_ += connection_.Receive(sent ? 0 : 10);
  constexpr size_t kFrameHead = 9;
  while (received_.size() >= kFrameHead) {
    const size_t length = BigEndian(received_, 0, 3);
    if (received_.size() < kFrameHead + length) return;
    TakeUp(received_[3], received_[4], BigEndian(received_, 5, 4),
           received_.substr(kFrameHead, length));
    received_.erase(0, kFrameHead + length);
  }
}

void UnfinishedCalls::TakeUp(char type, char flags, uint32_t stream, const std::string& payload) {
  constexpr char kHeaders = 1, kReset = 3, kSettings = 4, kPing = 6, kWindowUpdate = 8;
  constexpr uint32_t kInitialWindow = 4;  // a setting
  const auto end = [&] { ended_ += static_cast<int64_t>(streams_.erase(stream)); };
  if (type == kSettings && (flags & kAck) == 0) {
    for (size_t at = 0; at + 6 <= payload.size(); at += 6) {
      if (BigEndian(payload, at, 2) == kInitialWindow) {
        initial_window_ = BigEndian(payload, at + 2, 4);
      }
    }
    connection_.Send(Frame(kSettings, kAck, 0, ""));
  } else if (type == kPing && (flags & kAck) == 0) {
    connection_.Send(Frame(kPing, kAck, 0, payload));
  } else if (type == kWindowUpdate) {
    const auto granted = BigEndian(payload, 0, 4);
    if (stream == 0) {
      window_ += granted;
    } else if (const auto found = streams_.find(stream); found != streams_.end()) {
      found->second.granted_bytes += granted;
    }
  } else if (type == kReset || (type == kHeaders && (flags & kEndStream) != 0)) {
    end();
  }
}

}  // namespace nestrec
