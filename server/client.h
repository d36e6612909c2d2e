// A client of nestrec.v1.RecommendService for programs of ours: blocking calls, absl::Status with
// the server's field violations (status_details.h), and messages that say what to do when no server
// answers.
//
// Thread safety: calls may run in parallel.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "nestrec/v1/recommend.pb.h"
#include "server/client_channel.h"

namespace nestrec {

class RecommendClient {
 public:
  using Options = ClientOptions;

  // Does not connect yet.
  explicit RecommendClient(Options options);
  ~RecommendClient();

  // The server's error, or kUnavailable, naming the address and how to start a server, when none
  // answers there.
  absl::StatusOr<v1::RecommendResponse> Recommend(const v1::RecommendRequest& request) const;
  absl::StatusOr<v1::BatchRecommendResponse> BatchRecommend(
      const v1::BatchRecommendRequest& request) const;
  absl::StatusOr<v1::SimilarItemsResponse> SimilarItems(
      const v1::SimilarItemsRequest& request) const;
  absl::StatusOr<v1::EncodeResponse> Encode(const v1::EncodeRequest& request) const;
  absl::StatusOr<v1::RecordEventsResponse> RecordEvents(
      const v1::RecordEventsRequest& request) const;
  absl::StatusOr<v1::ForgetUserResponse> ForgetUser(const v1::ForgetUserRequest& request) const;
  absl::StatusOr<v1::UpsertItemsResponse> UpsertItems(const v1::UpsertItemsRequest& request) const;
  absl::StatusOr<v1::RemoveItemsResponse> RemoveItems(const v1::RemoveItemsRequest& request) const;
  absl::StatusOr<v1::GetModelInfoResponse> GetModelInfo() const;

 private:
  struct Stub;

  const ClientChannel channel_;
  std::unique_ptr<Stub> stub_;
};

}  // namespace nestrec
