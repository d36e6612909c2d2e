// Calls of services whose generated code distributions do not ship (health, reflection): requests
// and answers as bytes.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

namespace nestrec {

// A length-delimited field number < 16, as protobuf encodes it.
std::string BytesField(int number, const std::string& value);

struct RawReply {
  grpc::Status status;
  std::string bytes;
};

// `method` is "/package.Service/Method".
RawReply RawUnaryCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                      const std::string& request);

// Sends one request on a bidirectional stream and returns the first answer.
RawReply RawStreamCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                       const std::string& request);

// A watch of grpc.health.v1.
class HealthWatch {
 public:
  HealthWatch(const std::shared_ptr<grpc::Channel>& channel, const std::string& service);
  ~HealthWatch();
  // The next state that the server sends, as CheckHealth says it; "END" when it ends the watch.
  std::string Next();

 private:
  grpc::GenericStub stub_;
  grpc::CompletionQueue queue_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

// grpc.health.v1: "SERVING", "NOT_SERVING", "UNKNOWN", or the error's code as a number.
std::string CheckHealth(const std::shared_ptr<grpc::Channel>& channel, const std::string& service);

}  // namespace nestrec
