// A unary RPC of gRPC's callback API, from its arrival to its end, and what every RPC passes on the
// way: the count of running calls, and hooks that may refuse it (who is it, how often) or only
// listen (metrics, logs).
//
//   return BeginCall(path_, context, "Recommend", [&](UnaryCall* call) -> absl::Status {
//     NESTREC_RETURN_IF_ERROR(Validate(*request));
//     return queue_->Submit(..., [call] { call->End(absl::OkStatus()); });
//   });
//
// Thread safety: a UnaryCall's End may be called from any thread; hooks are called from any thread.
#pragma once

#include <grpcpp/grpcpp.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/guard.h"
#include "server/call_tracker.h"
#include "server/clock.h"

namespace nestrec {

// What was served to a call that asked for recommendations, for logs.
struct CallDetails {
  int64_t k = 0;        // 0: it asks for no items
  int64_t history = 0;  // items, the session's included
  int dim = 0;          // 0: it was not served
  std::string tier;     // empty: none
  absl::string_view why;
  absl::Duration queued, encode, search;
  absl::Duration work;         // of a call that no model runs for, after it was queued
  int64_t requests = 0;        // of a batch, of which the rest says what the slowest took; 0: none
  int64_t session_bytes = -1;  // what the user takes in memory; -1: it is about no user
};

// What is known of a call. Hooks may add to it on arrival.
struct CallInfo {
  grpc::ServerContextBase* context = nullptr;
  absl::string_view service;  // "nestrec.v1.RecommendService"
  absl::string_view method;   // "Recommend"
  int64_t requests = 1;       // that it counts as
  Instant arrived;
  // The call's deadline on the steady clock; max(): none.
  Instant deadline = Instant::max();
  std::string client;      // who calls, as far as that was proven; else empty
  std::string request_id;  // for logs; may be empty
  std::string trace_id;    // the same: 32 hex digits
  CallDetails details;     // what the method says of itself
};

class CallHook {
 public:
  virtual ~CallHook() = default;
  // Once for every call, before all else.
  virtual void Arrived(CallInfo& /*call*/) {}
  // On arrival, in the order of the hooks. An error ends the call with it; later hooks do not see
  // its Begin.
  virtual absl::Status Begin(CallInfo& /*call*/) { return absl::OkStatus(); }
  // Once for every call, refused ones included, when its status is known and before it is sent.
  // `took` is the time since its arrival.
  virtual void End(const CallInfo& /*call*/, const absl::Status& /*status*/,
                   absl::Duration /*took*/) {}
};

// What the RPCs of a service pass. All that it points to outlives the calls.
struct CallPath {
  absl::string_view service;
  CallTracker* tracker = nullptr;
  std::vector<CallHook*> hooks;
  Clock clock = SteadyClock();
};

// Deletes itself when gRPC has sent the answer.
class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(const CallPath* path, grpc::CallbackServerContext* context, absl::string_view method,
            int64_t requests);

  const CallInfo& info() const { return info_; }
  CallDetails& details() { return info_.details; }
  bool Cancelled() const { return info_.context->IsCancelled(); }
  // Ends the call. REQUIRES: called once. The context, the request and the response are gone
  // afterwards.
  void End(const absl::Status& status);

  // Asks tracker and hooks. For BeginCall.
  absl::Status Admit();

 private:
  void OnDone() override;
  // What OnDone does is short and takes no lock that a caller of gRPC holds: it needs no thread of
  // gRPC's executor, whose waking costs as much as a small call.
  bool InternalInlineable() override { return true; }

  const CallPath* const path_;
  CallInfo info_;
  bool tracked_ = false;
};

// Runs `body(call)`. Where it returns ok it has taken care that somebody ends the call, or has done
// so; an error ends the call with it. The call counts as `requests` where calls are counted.
template <typename Body>
grpc::ServerUnaryReactor* BeginCall(const CallPath& path, grpc::CallbackServerContext* context,
                                    absl::string_view method, Body&& body, int64_t requests = 1) {
  auto* call = new UnaryCall(&path, context, method, requests);
  absl::Status status = call->Admit();
  if (status.ok()) status = Guard("handling a call", [&] { return body(call); });
  // After an ok the call may be gone.
  if (!status.ok()) call->End(status);
  return call;
}

}  // namespace nestrec
