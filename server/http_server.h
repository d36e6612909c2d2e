// A small HTTP listener for operators: a few pages that are made when they are asked for. GET and
// HEAD alone; every connection gets one answer and is closed.
//
//   NESTREC_ASSIGN_OR_RETURN(auto http, HttpServer::Start({.listen = "127.0.0.1:9090"}, {
//       {"/healthz", [] { return HttpPage{.text = "alive\n"}; }}}));
//   http->address();   // "127.0.0.1:9090"
//
// It is made for a network that is not to be trusted with much: one thread, kMaxConnections at a
// time, kMaxRequestBytes a request, kTimeout from a connection's begin to its end, however slowly
// the other side reads or writes. When all places are taken, the oldest connection makes room: one
// that is fast is never kept out by those that are slow (docs/adr/0015-own-http-listener.md).
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace nestrec {

struct HttpPage {
  int code = 200;  // 200 or 503
  std::string text;
  std::string type = "text/plain; charset=utf-8";
};

class HttpServer {
 public:
  static constexpr size_t kMaxConnections = 32;
  static constexpr size_t kMaxRequestBytes = 8192;
  static constexpr absl::Duration kTimeout = absl::Seconds(5);

  // By path. Called on the listener's thread, one at a time: a page must not wait.
  using Pages = std::map<std::string, std::function<HttpPage()>>;
  struct Options {
    std::string listen;  // host:port; port 0: a free one
    absl::Duration timeout = kTimeout;
  };

  // Serves when it returns. kInvalidArgument: no address, or one that does not resolve.
  // kUnavailable: the address is taken, or not of this machine. kPermissionDenied: no right to.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(Options options, Pages pages);
  // Ends; answers that are not sent yet are lost.
  ~HttpServer();

  int port() const { return port_; }
  // With the port that was bound.
  const std::string& address() const { return address_; }

 private:
  class Loop;
  HttpServer(std::unique_ptr<Loop> loop, std::string address, int port);

  const std::unique_ptr<Loop> loop_;
  const std::string address_;
  const int port_;
  std::thread thread_;
};

}  // namespace nestrec
