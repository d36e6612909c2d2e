#include "server/rpc_status.h"

#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/status_details.h"

namespace nestrec {
namespace {

TEST(RpcStatus, KeepsOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
}

TEST(RpcStatus, KeepsEveryCodeAndMessage) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    const grpc::Status wire = ToGrpcStatus(status);
    EXPECT_EQ(static_cast<int>(wire.error_code()), code);
    EXPECT_EQ(wire.error_message(), "why");
    EXPECT_EQ(FromGrpcStatus(wire), status);
  }
}

TEST(RpcStatus, CarriesFieldViolationsAsGoogleRpcStatus) {
  const absl::Status status = BadRequest({{"k", "0 is not in 1 to 1000"}, {"dim", "7 is no size"}});
  EXPECT_EQ(status.message(), "k: 0 is not in 1 to 1000; dim: 7 is no size");
  const grpc::Status wire = ToGrpcStatus(status);

  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(wire.error_details()));
  EXPECT_EQ(details.code(), grpc::StatusCode::INVALID_ARGUMENT);
  ASSERT_EQ(details.details_size(), 1);
  google::rpc::BadRequest bad_request;
  ASSERT_TRUE(details.details(0).UnpackTo(&bad_request));  // checks the type URL
  EXPECT_EQ(bad_request.field_violations(1).field(), "dim");

  EXPECT_EQ(FieldViolationsOf(FromGrpcStatus(wire)), FieldViolationsOf(status));
}

TEST(RpcStatus, CarriesRetryDelays) {
  const absl::Status status =
      WithRetryDelay(absl::ResourceExhaustedError("full"), absl::Milliseconds(1250));
  EXPECT_EQ(RetryDelayOf(FromGrpcStatus(ToGrpcStatus(status))), absl::Milliseconds(1250));
  EXPECT_EQ(RetryDelayOf(absl::ResourceExhaustedError("full")), std::nullopt);
}

TEST(RpcStatus, IgnoresDetailsThatAreNone) {
  const grpc::Status wire(grpc::StatusCode::INTERNAL, "why", "\xff\xff not a message");
  EXPECT_EQ(FromGrpcStatus(wire).message(), "why");
  EXPECT_TRUE(FieldViolationsOf(FromGrpcStatus(wire)).empty());
}

}  // namespace
}  // namespace nestrec
