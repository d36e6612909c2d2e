// Just enough of HTTP/2 (RFC 9113) to be a bad client: connections and requests as bytes, over a
// socket that nobody reads, and calls that are never finished.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
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
  // What has come, waiting up to `wait_ms` for some. Empty: none came. Closed connections are not
  // ok() any more.
  std::string Receive(int wait_ms);

 private:
  int fd_;
};

// What a connection begins with.
std::string Http2Preface();
// A unary gRPC call on stream 1, 3, 5, ...: `path` is "/package.Service/Method", `message` its
// serialised request of less than 16 KB.
std::string Http2Call(uint32_t stream, const std::string& path, const std::string& message);

// A connection that keeps `calls` calls open and sends each of them as much of a message of
// `message_bytes` as the server takes, but never its end. Calls that the server ends are begun
// anew.
class UnfinishedCalls {
 public:
  UnfinishedCalls(int port, const std::string& path, int calls, int64_t message_bytes);

  // Sends what may be sent now and takes up what the server says.
  void Step();
  bool ok() const { return connection_.ok(); }
  int64_t sent_bytes() const { return sent_bytes_; }
  // Calls that the server has ended.
  int64_t ended() const { return ended_; }

 private:
  void Begin();
  void TakeUp(char type, char flags, uint32_t stream, const std::string& payload);

  RawConnection connection_;
  const std::string path_;
  const size_t calls_;
  const int64_t message_bytes_;
  uint32_t next_stream_ = 1;
  int64_t window_ = 65'535;          // that the connection may still send
  int64_t initial_window_ = 65'535;  // of a stream
  struct Stream {
    int64_t sent_bytes = 0, granted_bytes = 0;
  };
  std::map<uint32_t, Stream> streams_;
  std::string received_;
  int64_t sent_bytes_ = 0, ended_ = 0;
};

}  // namespace nestrec
