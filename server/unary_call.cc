#include "server/unary_call.h"

#include <chrono>

#include "server/rpc_status.h"

namespace nestrec {
namespace {

// gRPC gives deadlines on the wall clock; no deadline is the far future there.
Instant SteadyDeadline(const grpc::CallbackServerContext& context, Instant now) {
  const auto left = context.deadline() - std::chrono::system_clock::now();
  const auto longest = std::chrono::hours(24);
  return left > longest ? Instant::max()
                        : now + std::chrono::duration_cast<Instant::duration>(left);
}

}  // namespace

UnaryCall::UnaryCall(const CallPath* path, grpc::CallbackServerContext* context,
                     absl::string_view method, int64_t requests)
    : path_(path) {
  info_.context = context;
  info_.service = path->service;
  info_.method = method;
  info_.requests = requests;
  info_.arrived = path->clock();
  info_.deadline = SteadyDeadline(*context, info_.arrived);
  for (CallHook* hook : path->hooks) hook->Arrived(info_);
}

absl::Status UnaryCall::Admit() {
  tracked_ = path_->tracker->Begin();
  if (!tracked_) {
    return absl::UnavailableError("the server is shutting down");
  }
  for (CallHook* hook : path_->hooks) {
    absl::Status status = hook->Begin(info_);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void UnaryCall::End(const absl::Status& status) {
  if (!path_->hooks.empty()) {
    const absl::Duration took = Between(info_.arrived, path_->clock());
    for (CallHook* hook : path_->hooks) hook->End(info_, status, took);
  }
  Finish(ToGrpcStatus(status));
}

void UnaryCall::OnDone() {
  if (tracked_) path_->tracker->End();
  delete this;
}

}  // namespace nestrec
