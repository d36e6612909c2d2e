#include "tests/server/raw_rpc.h"

#include <chrono>

namespace nestrec {
namespace {

void* const kTag = nullptr;

grpc::ByteBuffer ToBuffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::string ToString(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (buffer.Valid() && buffer.Dump(&slices).ok()) {
    for (const grpc::Slice& slice : slices) {
      bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
  }
  return bytes;
}

// Waits for the operation that was started last.
bool Next(grpc::CompletionQueue& queue) {
  void* tag = nullptr;
  bool ok = false;
  return queue.Next(&tag, &ok) && ok;
}

void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
}

// HealthCheckResponse.status is field 1, a varint.
std::string HealthOf(const std::string& bytes) {
  return bytes == "\x08\x01" ? "SERVING" : bytes == "\x08\x02" ? "NOT_SERVING" : "UNKNOWN";
}

}  // namespace

std::string BytesField(int number, const std::string& value) {
  return std::string(1, static_cast<char>(number << 3 | 2)) + static_cast<char>(value.size()) +
         value;
}

RawReply RawUnaryCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                      const std::string& request) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  SetDeadline(context);
  const auto call = stub.PrepareUnaryCall(&context, method, ToBuffer(request), &queue);
  call->StartCall();
  RawReply reply;
  grpc::ByteBuffer buffer;
  call->Finish(&buffer, &reply.status, kTag);
  Next(queue);
  reply.bytes = ToString(buffer);
  return reply;
}

RawReply RawStreamCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                       const std::string& request) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  SetDeadline(context);
  const auto call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(kTag);
  bool ok = Next(queue);
  if (ok) {
    call->Write(ToBuffer(request), kTag);
    ok = Next(queue);
  }
  RawReply reply;
  grpc::ByteBuffer buffer;
  if (ok) {
    call->Read(&buffer, kTag);
    ok = Next(queue);
  }
  if (ok) {
    reply.bytes = ToString(buffer);
    call->WritesDone(kTag);
    Next(queue);
  }
  call->Finish(&reply.status, kTag);
  Next(queue);
  return reply;
}

HealthWatch::HealthWatch(const std::shared_ptr<grpc::Channel>& channel, const std::string& service)
    : stub_(channel) {
  SetDeadline(context_);
  call_ = stub_.PrepareCall(&context_, "/grpc.health.v1.Health/Watch", &queue_);
  call_->StartCall(kTag);
  nestrec::Next(queue_);
  call_->Write(ToBuffer(BytesField(1, service)), kTag);
  nestrec::Next(queue_);
}

HealthWatch::~HealthWatch() {
  context_.TryCancel();
  grpc::Status status;
  call_->Finish(&status, kTag);
  nestrec::Next(queue_);
}

std::string HealthWatch::Next() {
  grpc::ByteBuffer buffer;
  call_->Read(&buffer, kTag);
  return nestrec::Next(queue_) ? HealthOf(ToString(buffer)) : "END";
}

std::string CheckHealth(const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  const RawReply reply =
      RawUnaryCall(channel, "/grpc.health.v1.Health/Check", BytesField(1, service));
  return reply.status.ok() ? HealthOf(reply.bytes) : std::to_string(reply.status.error_code());
}

}  // namespace nestrec
