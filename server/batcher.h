// The threads that run the model, behind bounded queues: RPC threads hand requests over and never
// compute. A worker takes what waits, up to a batch, and runs it at once.
//
//   Batcher batcher({.queue = {.lanes = {{.capacity = 1024}}, .max_batch = 8, .workers = 4},
//                    .run = [&](Batcher::Batch batch) { engine.Run(std::move(batch)); }});
//   NESTREC_RETURN_IF_ERROR(batcher.Submit(0, {.item = std::move(call), .accepted = now}));
//
// Every item that Submit accepted is completed once: it is part of one batch, or it is dropped. An
// item that is cancelled or past its deadline when its turn comes is dropped before it costs
// anything.
//
// Workers are as many threads as the queue says; each of them runs OpenMP's regions, BLAS's
// included, alone, so that the machine has no more threads than that.
//
// Thread safety: all methods may be called from any thread; not from a batch.
#pragma once

#include <functional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "server/batch_queue.h"
#include "server/clock.h"
#include "server/mutex.h"

namespace nestrec {

class Batcher {
 public:
  struct Batch {
    std::vector<QueuedItem> items;  // at least one
    Instant started;
    absl::Duration waited;  // the longest of them
  };
  struct Options {
    BatchQueue::Options queue;
    // Completes every item of the batch. Called on the workers' threads, in parallel; throws
    // nothing.
    std::function<void(Batch)> run;
    Clock clock = SteadyClock();
  };

  explicit Batcher(Options options);
  // Runs what is queued, then ends.
  ~Batcher();
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;

  // Errors of BatchQueue::Push; kUnavailable after Shutdown. The item is not kept then, and not
  // completed.
  absl::Status Submit(size_t lane, QueuedItem item);

  std::vector<LaneStats> stats();  // [lanes]

  // Refuses new items, runs the queued ones and returns when the last batch has ended. May be
  // called again.
  void Shutdown();

 private:
  void Work();
  // The next items of a worker; none at the end.
  BatchQueue::Taken Take();

  const Options options_;
  Mutex mutex_;
  ConditionVariable changed_;
  BatchQueue queue_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Mutex join_mutex_;
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(join_mutex_);
};

}  // namespace nestrec
