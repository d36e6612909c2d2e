#include "server/client.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "nestrec/v1/recommend.grpc.pb.h"

namespace nestrec {

struct RecommendClient::Stub {
  std::unique_ptr<v1::RecommendService::Stub> service;
};

RecommendClient::RecommendClient(Options options)
    : channel_(std::move(options)), stub_(std::make_unique<Stub>()) {
  stub_->service = v1::RecommendService::NewStub(channel_.channel());
}

RecommendClient::~RecommendClient() = default;

absl::StatusOr<v1::RecommendResponse> RecommendClient::Recommend(
    const v1::RecommendRequest& request) const {
  v1::RecommendResponse response;
  const auto context = channel_.NewContext();
  const grpc::Status status = stub_->service->Recommend(context.get(), request, &response);
  if (!status.ok()) {
    return channel_.Explain(status);
  }
  return response;
}

absl::StatusOr<v1::RecordEventsResponse> RecommendClient::RecordEvents(
    const v1::RecordEventsRequest& request) const {
  v1::RecordEventsResponse response;
  const auto context = channel_.NewContext();
  const grpc::Status status = stub_->service->RecordEvents(context.get(), request, &response);
  if (!status.ok()) {
    return channel_.Explain(status);
  }
  return response;
}

absl::StatusOr<v1::ForgetUserResponse> RecommendClient::ForgetUser(
    const v1::ForgetUserRequest& request) const {
  v1::ForgetUserResponse response;
  const auto context = channel_.NewContext();
  const grpc::Status status = stub_->service->ForgetUser(context.get(), request, &response);
  if (!status.ok()) {
    return channel_.Explain(status);
  }
  return response;
}

absl::StatusOr<v1::GetModelInfoResponse> RecommendClient::GetModelInfo() const {
  v1::GetModelInfoResponse response;
  const auto context = channel_.NewContext();
  const grpc::Status status =
      stub_->service->GetModelInfo(context.get(), v1::GetModelInfoRequest(), &response);
  if (!status.ok()) {
    return channel_.Explain(status);
  }
  return response;
}

}  // namespace nestrec
