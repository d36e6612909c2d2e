// From a request for items as it came to its place in the engine's queue: which model it runs on,
// validation, the session. Shared by the RPCs that return items, and by Encode.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "nestrec/v1/recommend.pb.h"
#include "server/clock.h"
#include "server/recommend_engine.h"
#include "server/session/session_manager.h"
#include "server/snapshot_source.h"
#include "server/unary_call.h"
#include "server/validate.h"
#include "server/worker_pool.h"

namespace nestrec {

class RequestRecorder;

// What requests need of sessions; manager and workers null: the server keeps none.
struct SessionParts {
  SessionManager* manager = nullptr;
  WorkerPool* workers = nullptr;        // that wait for the log
  RequestRecorder* recorder = nullptr;  // null: nothing is sampled
};

// Where one request's answer goes.
struct RecommendTarget {
  // Whether nobody waits any more. From any thread, until `done`.
  std::function<bool()> cancelled;
  // Called once, from any thread: the response is complete, or what went wrong. The response is not
  // touched afterwards.
  std::function<void(const absl::Status&)> done;
  Instant arrived;
  Instant deadline = Instant::max();
  std::string request_id = {};     // for logs
  CallDetails* details = nullptr;  // filled before `done`; null: nobody asks
};

class RecommendStarter {
 public:
  // All of it outlives the requests.
  RecommendStarter(const SnapshotSource* snapshots, const RequestLimits& limits,
                   RecommendEngine* engine, SessionParts sessions, Clock clock);

  // Ok: `target.done` is or will be called. Else it never is: kInvalidArgument with field
  // violations, kFailedPrecondition for a user where no sessions are kept and for items where
  // nothing is searched, errors of
  // RecommendEngine::Submit.
  absl::Status Start(const v1::RecommendRequest& request, v1::RecommendResponse* response,
                     RecommendTarget target) const;
  absl::Status Start(const v1::EncodeRequest& request, v1::EncodeResponse* response,
                     RecommendTarget target) const;
  // The same, and kNotFound for an item that the catalogue does not have.
  absl::Status Start(const v1::SimilarItemsRequest& request, v1::SimilarItemsResponse* response,
                     RecommendTarget target) const;

 private:
  // Queues a valid call, behind the reading of its session where that may take a network's time.
  template <typename Call>
  absl::Status Queue(std::unique_ptr<Call> call) const;

  const SnapshotSource* const snapshots_;
  const RequestLimits limits_;
  RecommendEngine* const engine_;
  const SessionParts sessions_;
  const Clock clock_;
};

}  // namespace nestrec
