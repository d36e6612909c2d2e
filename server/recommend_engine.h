// From a validated request to its items: the queue, the threads, the choice of the width, the model
// and the search.
//
//   RecommendEngine engine(snapshot, {.workers = 8});
//   engine.WarmUp(*snapshot);
//   NESTREC_RETURN_IF_ERROR(engine.Submit(std::move(call)));   // a worker completes it
//
// A worker takes a batch (server/batcher.h) and chooses each request's width (server/policy.h) from
// the time that it has left, what the model's widths cost here and now (server/cost_model.h) and
// the load (server/overload_controller.h), and from what fitted lately (server/width_hold.h). All
// of the batch is encoded together, each request up to its own width; one whose time may or may not
// be enough for a wider one, with a session or without, goes on level by level while it is. Then
// those that ask the same index are searched together, and completed.
//
// What a request gets does not depend, in any bit, on the rest of its batch, but for its width
// where time decided.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/batch_estimate.h"
#include "server/batcher.h"
#include "server/clock.h"
#include "server/cost_model.h"
#include "server/overload_controller.h"
#include "server/policy.h"
#include "server/recent_requests.h"
#include "server/recommender.h"
#include "server/session/session_manager.h"
#include "server/snapshot.h"
#include "server/validate.h"

namespace nestrec {

// A request that was validated against its snapshot. Exactly one of Answer and Fail is called,
// once, if Submit accepted it.
class RecommendCall : public BatchItem {
 public:
  struct Answered {
    WidthDecision width;  // as served
    Recommendation recommendation;
    absl::Duration queued;
  };

  virtual void Answer(const Answered& answered) = 0;
  virtual void Fail(const absl::Status& why) = 0;
  void Drop(const absl::Status& why) override { Fail(why); }

  RecommendQuery query;
  std::shared_ptr<const Snapshot> snapshot;
  // That the query was validated against; null: the snapshot's at Submit.
  std::shared_ptr<const ItemView> items;
  Instant arrived;
  Instant deadline = Instant::max();  // the call's
  std::string request_id;             // for logs; may be empty
};

// Listens to an engine. Called from workers' threads, which wait for it: it must be quick and throw
// nothing.
class EngineObserver {
 public:
  struct Batch {
    size_t requests = 0;
    int64_t rows = 0;         // items of their histories that were encoded, at least one each
    absl::Duration encode;    // of all of them
    absl::Duration took;      // from the first to the last of it
    absl::Duration expected;  // that it would hardly take longer; 0: nothing was known
  };

  virtual ~EngineObserver() = default;
  // Before the answer leaves.
  virtual void Served(const RecommendCall& /*call*/, const RecommendCall::Answered& /*answered*/) {}
  virtual void Ran(const Batch& /*batch*/) {}
};

class RecommendEngine {
 public:
  struct Options {
    int workers = 1;            // REQUIRES: >= 1
    int queue_capacity = 1024;  // requests of all tiers that wait; REQUIRES: >= 1
    int max_batch = 8;          // requests; REQUIRES: >= 1
    absl::Duration batch_delay = absl::ZeroDuration();
    // The wait that a standing queue may have before requests are narrowed.
    absl::Duration overload_target = absl::Milliseconds(5);
    SessionManager* sessions = nullptr;      // outlives the engine; null: no request has a user
    std::vector<EngineObserver*> observers;  // outlive the engine
    Clock clock = SteadyClock();
    Clock warm_up_clock = ThreadClock();
  };

  // The tiers are those of `snapshot`, and of the snapshots of all calls.
  RecommendEngine(const Snapshot& snapshot, const Options& options);

  // kFailedPrecondition for a snapshot whose tiers have other names, an other order or other places
  // in the queue than those that the engine began with.
  absl::Status CheckTiers(const Snapshot& snapshot) const;

  // Runs every width a few times, and the latest requests again, for about a second at most, so
  // that the first requests meet warm caches and known costs.
  absl::Status WarmUp(const Snapshot& snapshot);

  // Errors of ChooseWidth; kInvalidArgument for a k beyond the tier's; errors of Batcher::Submit.
  // The call is not completed then.
  absl::Status Submit(std::unique_ptr<RecommendCall> call);

  // Completes what is queued. May be called again.
  void Shutdown() { batcher_.Shutdown(); }

  // Widths that the load takes at present.
  int narrowing() { return overload_.steps(); }
  // Whether there is more work than time: the load takes widths, or more requests wait than all
  // workers take at once.
  bool overloaded();
  // By tier, in the tiers' order.
  std::vector<LaneStats> queue_stats() { return batcher_.stats(); }

 private:
  // A call of a batch, on its way through it.
  struct Place;

  void Run(Batcher::Batch batch);
  // REQUIRES: one snapshot. Returns what the batch would have taken with one step less, as a
  // multiple of what it took.
  double RunOn(const Snapshot& snapshot, std::span<Place> places, Instant started, int narrowing);
  // Nothing where time does not decide: an explicit dim, neither budget nor deadline.
  static std::optional<WidthHold::Key> HoldKeyOf(const Place& place);
  WidthDecision Decide(const Place& place, const BatchEstimate& estimate, int narrowing) const;
  absl::Status EncodeSessions(const Snapshot& snapshot, std::span<Place> places,
                              const BatchEstimate& estimate);
  absl::Status EncodeHistories(const Snapshot& snapshot, std::span<Place> places,
                               const BatchEstimate& estimate);
  // Searches for all that have not failed and ask for items, those of one index together, and
  // completes them.
  void Find(const Snapshot& snapshot, std::span<Place> places, Instant started,
            absl::Duration encode);
  // Completes those that ask for no items.
  void AnswerVectors(std::span<Place> places, Instant started, absl::Duration encode);
  void Complete(const Snapshot& snapshot, Place& place, Recommendation recommendation,
                Instant started);

  absl::Status ExplainPlace(const Snapshot& snapshot, const Place& place,
                            Recommendation& recommendation) const;

  const Options options_;
  const std::vector<BatchQueue::Lane> lanes_;
  RecentRequests recent_;
  OverloadController overload_;
  Batcher batcher_;  // last: its threads use the others
};

}  // namespace nestrec
