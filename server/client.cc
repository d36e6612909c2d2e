#include "server/client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nestrec/v1/recommend.grpc.pb.h"
#include "server/rpc_status.h"

namespace nestrec {

struct RecommendClient::Stub {
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::RecommendService::Stub> service;
};

namespace {

std::unique_ptr<grpc::ClientContext> NewContext(const RecommendClient::Options& options) {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() +
                        absl::ToChronoNanoseconds(options.timeout));
  return context;
}

absl::Status Explain(const grpc::Status& status, const RecommendClient::Options& options,
                     grpc::Channel& channel) {
  const absl::Status result = FromGrpcStatus(status);
  switch (result.code()) {
    case absl::StatusCode::kUnavailable:
      // A server that says so itself is connected.
      return channel.GetState(false) == GRPC_CHANNEL_READY
                 ? result
                 : absl::UnavailableError(absl::StrCat(
                       "no server answers at ", options.server,
                       "; start one with: nestrec serve --model <file> --listen ", options.server));
    case absl::StatusCode::kDeadlineExceeded:
      return absl::DeadlineExceededError(absl::StrCat("no answer from ", options.server, " within ",
                                                      absl::FormatDuration(options.timeout)));
    case absl::StatusCode::kUnimplemented:
      return absl::UnimplementedError(
          absl::StrCat("the server at ", options.server, " is not a nestrec server"));
    default:
      return result;
  }
}

}  // namespace

RecommendClient::RecommendClient(Options options)
    : options_(std::move(options)), stub_(std::make_unique<Stub>()) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // a person's client trusts the server that it asks
  stub_->channel =
      grpc::CreateCustomChannel(options_.server, grpc::InsecureChannelCredentials(), arguments);
  stub_->service = v1::RecommendService::NewStub(stub_->channel);
}

RecommendClient::~RecommendClient() = default;

absl::StatusOr<v1::RecommendResponse> RecommendClient::Recommend(
    const v1::RecommendRequest& request) const {
  v1::RecommendResponse response;
  const auto context = NewContext(options_);
  const grpc::Status status = stub_->service->Recommend(context.get(), request, &response);
  if (!status.ok()) {
    return Explain(status, options_, *stub_->channel);
  }
  return response;
}

absl::StatusOr<v1::RecordEventsResponse> RecommendClient::RecordEvents(
    const v1::RecordEventsRequest& request) const {
  v1::RecordEventsResponse response;
  const auto context = NewContext(options_);
  const grpc::Status status = stub_->service->RecordEvents(context.get(), request, &response);
  if (!status.ok()) {
    return Explain(status, options_, *stub_->channel);
  }
  return response;
}

absl::StatusOr<v1::ForgetUserResponse> RecommendClient::ForgetUser(
    const v1::ForgetUserRequest& request) const {
  v1::ForgetUserResponse response;
  const auto context = NewContext(options_);
  const grpc::Status status = stub_->service->ForgetUser(context.get(), request, &response);
  if (!status.ok()) {
    return Explain(status, options_, *stub_->channel);
  }
  return response;
}

absl::StatusOr<v1::GetModelInfoResponse> RecommendClient::GetModelInfo() const {
  v1::GetModelInfoResponse response;
  const auto context = NewContext(options_);
  const grpc::Status status =
      stub_->service->GetModelInfo(context.get(), v1::GetModelInfoRequest(), &response);
  if (!status.ok()) {
    return Explain(status, options_, *stub_->channel);
  }
  return response;
}

}  // namespace nestrec
