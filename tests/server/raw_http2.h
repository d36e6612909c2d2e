// Just enough of HTTP/2 (RFC 9113) to be a bad client: connections and requests as bytes, over a
// socket that nobody reads.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <string>

namespace nestrec {

class RawConnection {
 public:
  // To 127.0.0.1; what the server sends fits into little more than `receive_buffer_bytes` (0: the
  // system's default) before it has to wait. Check ok().
  explicit RawConnection(int port, int receive_buffer_bytes = 0);
  ~RawConnection();
  RawConnection(RawConnection&& other) noexcept;
  RawConnection& operator=(RawConnection&&) = delete;

  bool ok() const { return fd_ >= 0; }
  // False when not all of it could be sent within five seconds, or the server closed.
  bool Send(const std::string& bytes);

 private:
  int fd_;
};

// What a connection begins with.
std::string Http2Preface();
// A unary gRPC call on stream 1, 3, 5, ...: `path` is "/package.Service/Method", `message` its
// serialised request of less than 16 KB.
std::string Http2Call(uint32_t stream, const std::string& path, const std::string& message);

}  // namespace nestrec
