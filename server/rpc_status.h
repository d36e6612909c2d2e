// The one place where absl::Status and grpc::Status become each other. Codes and messages are the
// same on both sides; payloads travel as google.rpc.Status in the error details, as clients of
// every language expect them.
//
// Thread safety: pure functions.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "nestrec/v1/recommend.pb.h"

namespace nestrec {

grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

// The same as a message, for statuses inside responses; byte by byte a google.rpc.Status.
v1::CallError ToProto(const absl::Status& status);
absl::Status FromProto(const v1::CallError& status);

}  // namespace nestrec
