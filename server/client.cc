#include "server/client.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "nestrec/v1/recommend.grpc.pb.h"

namespace nestrec {

struct RecommendClient::Stub {
  std::unique_ptr<v1::RecommendService::Stub> service;
};

namespace {

using Service = v1::RecommendService::Stub;

// One call, from its deadline to what its status says.
template <typename Request, typename Response>
absl::StatusOr<Response> Call(const ClientChannel& channel, Service& service,
                              grpc::Status (Service::*method)(grpc::ClientContext*, const Request&,
                                                              Response*),
                              const Request& request) {
  Response response;
  const auto context = channel.NewContext();
  const grpc::Status status = (service.*method)(context.get(), request, &response);
  if (!status.ok()) {
    return channel.Explain(status);
  }
  return response;
}

}  // namespace

RecommendClient::RecommendClient(Options options)
    : channel_(std::move(options)), stub_(std::make_unique<Stub>()) {
  stub_->service = v1::RecommendService::NewStub(channel_.channel());
}

RecommendClient::~RecommendClient() = default;

absl::StatusOr<v1::RecommendResponse> RecommendClient::Recommend(
    const v1::RecommendRequest& request) const {
  return Call(channel_, *stub_->service, &Service::Recommend, request);
}

absl::StatusOr<v1::BatchRecommendResponse> RecommendClient::BatchRecommend(
    const v1::BatchRecommendRequest& request) const {
  return Call(channel_, *stub_->service, &Service::BatchRecommend, request);
}

absl::StatusOr<v1::SimilarItemsResponse> RecommendClient::SimilarItems(
    const v1::SimilarItemsRequest& request) const {
  return Call(channel_, *stub_->service, &Service::SimilarItems, request);
}

absl::StatusOr<v1::EncodeResponse> RecommendClient::Encode(const v1::EncodeRequest& request) const {
  return Call(channel_, *stub_->service, &Service::Encode, request);
}

absl::StatusOr<v1::RecordEventsResponse> RecommendClient::RecordEvents(
    const v1::RecordEventsRequest& request) const {
  return Call(channel_, *stub_->service, &Service::RecordEvents, request);
}

absl::StatusOr<v1::ForgetUserResponse> RecommendClient::ForgetUser(
    const v1::ForgetUserRequest& request) const {
  return Call(channel_, *stub_->service, &Service::ForgetUser, request);
}

absl::StatusOr<v1::UpsertItemsResponse> RecommendClient::UpsertItems(
    const v1::UpsertItemsRequest& request) const {
  return Call(channel_, *stub_->service, &Service::UpsertItems, request);
}

absl::StatusOr<v1::RemoveItemsResponse> RecommendClient::RemoveItems(
    const v1::RemoveItemsRequest& request) const {
  return Call(channel_, *stub_->service, &Service::RemoveItems, request);
}

absl::StatusOr<v1::GetModelInfoResponse> RecommendClient::GetModelInfo() const {
  return Call(channel_, *stub_->service, &Service::GetModelInfo, v1::GetModelInfoRequest());
}

}  // namespace nestrec
